"""What `ashi up` decides before and while it runs, without a broker: what it is asked for, and what has ended."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from ashi.contracts.errors import ContractError, UsageError
from ashi.contracts.feed import FeedState, FeedStatus
from ashi.runtime.settings import Settings
from ashi_cli.main import main
from ashi_cli.onemachine import stack
from ashi_cli.onemachine.chart import LOOPBACK, Chart
from ashi_cli.onemachine.options import UpOptions
from ashi_cli.onemachine.plan import FILE, SIMULATED, Remembered, check_storage, make_plan, recall, remember
from ashi_cli.onemachine.stack import Stage, StageError, bound_log
from ashi_cli.onemachine.supervisor import FEED_WAIT_S, MOST_FAILURES, STEADY_S, WAITS_S, Job, Supervisor
from ashi_cli.onemachine.watch import LASTING_S, LINES_A_MINUTE, FeedStates

if TYPE_CHECKING:
    from collections.abc import Sequence

BTC = ("binance", "BTCUSDT")
HERE = Path("/somewhere")
BEFORE = Remembered(
    simulated=False, markets=["bitflyer:BTC_JPY", "binance:ETHUSDT"], timeframes="1m,5m", storage="sqlite:////x.db"
)


# What is to be run


def test_markets_are_those_named_else_those_of_the_last_time_else_the_usual_ones() -> None:
    plan = make_plan(UpOptions(markets=[BTC, ("gmo", "BTC"), BTC]), HERE, BEFORE)
    assert plan.markets == {"binance": ["BTCUSDT"], "gmo": ["BTC"]}
    assert (plan.named, plan.going_on) == (True, True)
    plan = make_plan(UpOptions(), HERE, BEFORE)
    assert plan.markets == {"bitflyer": ["BTC_JPY"], "binance": ["ETHUSDT"]}
    assert (plan.named, plan.going_on, plan.timeframes) == (True, True, "1m,5m")
    plan = make_plan(UpOptions(), HERE, None)
    assert set(plan.markets) == {"bitflyer", "gmo", "binance", "binance-usdm"}
    assert (plan.named, plan.going_on, plan.timeframes) == (False, False, None)
    markets = make_plan(UpOptions(simulate=True), HERE, None).markets
    assert [f"{venue}:{name}" for venue, names in markets.items() for name in names] == list(SIMULATED)


def test_what_cannot_be_or_does_not_fit_what_is_kept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="there is no venue 'nasdaq': write one of bitflyer, gmo"):
        make_plan(UpOptions(markets=[("nasdaq", "AAPL")]), HERE, None)
    with pytest.raises(ContractError):
        make_plan(UpOptions(markets=[("binance", "BTC USDT")]), HERE, None)
    with pytest.raises(UsageError, match=r"/somewhere holds real trades.*leave out --simulate, or choose another"):
        make_plan(UpOptions(simulate=True), HERE, BEFORE)
    simulated = Remembered(simulated=True, markets=["binance:X"], timeframes="1m", storage="s")
    with pytest.raises(UsageError, match=r"holds simulated trades.*add --simulate"):
        make_plan(UpOptions(), HERE, simulated)
    with pytest.raises(UsageError, match="of 1m,5m, and --timeframes says 1s: leave it out"):
        make_plan(UpOptions(timeframes="1s"), HERE, BEFORE)
    assert make_plan(UpOptions(timeframes="60s,300s"), HERE, BEFORE).timeframes == "1m,5m"
    monkeypatch.setenv("ASHI_TIMEFRAMES", "1h")
    with pytest.raises(UsageError, match="and ASHI_TIMEFRAMES says 1h"):
        make_plan(UpOptions(), HERE, BEFORE)
    check_storage("sqlite:////x.db", HERE, BEFORE)
    check_storage("anything", HERE, None)
    with pytest.raises(UsageError, match=r"keeps its candles in sqlite:////x\.db"):
        check_storage("sqlite:////y.db", HERE, BEFORE)


def test_a_folder_remembers_and_one_that_cannot_be_read_is_no_new_one(tmp_path: Path) -> None:
    assert recall(tmp_path) is None
    assert recall(tmp_path / "not" / "there") is None
    remember(tmp_path, BEFORE)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert recall(tmp_path) is None, "no broker was ever started there"
    (tmp_path / "broker" / "data").mkdir(parents=True)
    assert recall(tmp_path) == BEFORE
    (tmp_path / FILE).write_text('{"simulated":true}')
    with pytest.raises(UsageError, match=r"up\.json cannot be read .*choose another --workdir"):
        recall(tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises(UsageError, match="holds a Kafka that `ashi up` has not begun"):
        recall(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("up nasdaq:AAPL", "there is no venue 'nasdaq'"),
        ("up binance:BTCUSDT --storage mysql://me:secret@host/db", "store 'mysql': known stores are sqlite"),
        ("up --simulate --workdir /dev/null/x", "work directory /dev/null/x cannot be used"),
        ("demo --port 9000", "--port is that of the chart, for --keep"),
    ],
)
def test_wrong_options_are_told_and_nothing_is_written(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert "secret" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("up BTCUSDT", "'BTCUSDT' is not VENUE:MARKET, such as bitflyer:BTC_JPY"),
        ("up --port 70000", "ports are from 1 to 65535"),
        ("up --since yesterday", "is not a time in ISO 8601"),
        ("up --timeframes 7m", "does not divide a day evenly"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_status_2(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(arguments.split())
    assert ending.value.code == 2
    assert message in capsys.readouterr().err


def test_a_wrong_setting_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASHI_ALLOWED_LATENESS", "2 minutes")
    assert main(["up", "--simulate", "--workdir", str(tmp_path / "w")]) == 2
    assert "ASHI_ALLOWED_LATENESS '2 minutes' is wrong" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_a_demo_does_not_empty_what_up_keeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remember(tmp_path, BEFORE)
    assert main(["demo", "--workdir", str(tmp_path)]) == 2
    assert f"{tmp_path} is kept by `ashi up`" in capsys.readouterr().err


def test_a_taken_port_is_told_with_one_that_is_free(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert main(["up", "--simulate", "--port", str(port), "--workdir", str(tmp_path)]) == 2
        chart = Chart(LOOPBACK, port, "/")
        assert chart.answers()
    err = capsys.readouterr().err
    assert f"the chart cannot have port {port} of 127.0.0.1: it is taken; " in err
    assert "is free, or stop what listens there" in err
    assert not (tmp_path / "broker").exists()
    chart.check_port()
    assert not chart.answers()


def test_addresses_are_those_of_the_markets_and_of_one_chart() -> None:
    chart = Chart.of(Settings.from_environment({}), None)
    assert chart.address() == "http://127.0.0.1:8080/"
    elsewhere = Settings.from_environment({"ASHI_CHART_HOST": "0.0.0.0", "ASHI_CHART_BASE_PATH": "ashi"})
    chart = Chart.of(elsewhere, 81)
    assert chart.address("gmo:BTC", "5m") == "http://127.0.0.1:81/ashi/chart?symbol=gmo:BTC&timeframe=5m"
    assert "%E5%B8%81" in chart.address("binance:币", "5m")
    assert chart.arguments() == ["chart", "--host", "0.0.0.0", "--port", "81"]
    assert Chart("::1", 82, "/").address() == "http://[::1]:82/"


# What has ended


class Stages:
    """A stack whose stages end when told, at a time that is told too."""

    def __init__(self, logs: Path) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.started: list[str] = []
        self.running: dict[str, Any] = {}
        self._logs = logs
        self.supervisor = Supervisor(self, self.said.append, lambda: self.now)  # type: ignore[arg-type]

    def start(self, name: str, arguments: Sequence[str], environment: object = None) -> Stage:
        self.started.append(name)
        (self._logs / f"{name}.log").write_text(f"{arguments}\nsoon [error    ] no bread\nthe end\n")
        self.running[name] = process = SimpleNamespace(returncode=None)
        process.poll = lambda: process.returncode
        return Stage(name, process, self._logs / f"{name}.log")  # type: ignore[arg-type]

    def retire(self, stage: Stage) -> None:
        del self.running[stage.name]

    def end(self, name: str, status: int, after_s: float = 0.1) -> None:
        """It ends so long from now, and is looked at."""
        self.now += after_s
        self.running[name].returncode = status
        self.supervisor.look()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.supervisor.look()


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    made = Stages(tmp_path)
    for name, is_feed in (("sink", False), ("ingest-gmo", True), ("ingest-binance", True)):
        made.supervisor.start(Job(name, [name], is_feed=is_feed))
    made.started.clear()
    return made


def test_a_stage_that_ends_is_started_again_later_each_time_and_it_is_told_why(stages: Stages) -> None:
    for wait_s in WAITS_S[: MOST_FAILURES - 1]:
        stages.end("sink", 1)
        assert stages.said[-1].startswith(f"stage sink ended with status 1; it is started again in {wait_s:.0f} s.")
        assert stages.said[-1].endswith("sink.log ends with: soon [error    ] no bread")
        stages.wait(wait_s - 0.01)
        assert "sink" not in stages.running
        stages.wait(0.01)
        assert "sink" in stages.running
    with pytest.raises(StageError, match=rf"(?s)sink ended with status 1 {MOST_FAILURES} times in a row.*no bread"):
        stages.end("sink", 1)


def test_what_ran_for_long_is_counted_anew_and_what_had_a_reason_is_forgiven(stages: Stages) -> None:
    for _ in range(2 * MOST_FAILURES):
        stages.end("sink", -9, STEADY_S)
        assert "was killed by SIGKILL; it is started again in 1 s" in stages.said[-1]
        stages.wait(WAITS_S[0])
    for _ in range(2 * MOST_FAILURES):
        stages.end("sink", 1)
        stages.supervisor.forgive()
        stages.wait(0)
        assert "sink" in stages.running, "at once"


@pytest.mark.parametrize("name", ["sink", "ingest-gmo"])
def test_what_would_end_the_same_way_again_ends_all_at_once(stages: Stages, name: str) -> None:
    with pytest.raises(StageError, match=r"(?s)ended with status 2 and would do so again.*no bread"):
        stages.end(name, 2)
    assert stages.started == []


def test_feeds_are_weather_until_all_of_them_have_failed_for_good(stages: Stages) -> None:
    def fail(name: str, times: int) -> None:
        for _ in range(times):
            stages.end(name, 1)
            stages.wait(WAITS_S[-1])

    fail("ingest-gmo", MOST_FAILURES)
    assert f"it is started again in {FEED_WAIT_S:.0f} s" in stages.said[-1]
    stages.wait(FEED_WAIT_S)
    fail("ingest-gmo", 1)
    assert set(stages.running) == {"sink", "ingest-binance"}
    fail("ingest-binance", MOST_FAILURES - 1)
    with pytest.raises(StageError, match="ingest-binance ended with status 1 5 times in a row"):
        stages.end("ingest-binance", 1)


def test_a_log_that_grows_begins_anew_while_its_stage_goes_on_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "LOG_BYTES", 100)
    log = tmp_path / "sink.log"
    with log.open("ab", buffering=0) as writing:
        os.write(writing.fileno(), b"x" * 101)
        bound_log(log)
        os.write(writing.fileno(), b"new")
        bound_log(log)
    assert log.read_bytes() == b"new"
    assert (tmp_path / "sink.log.old").read_bytes() == b"x" * 101
    bound_log(tmp_path / "none.log")


# What is told of feeds


def status(symbol: str, state: FeedState, reason: str | None = None) -> FeedStatus:
    return FeedStatus(symbol, state, 0, reason, None, None, 0)


def test_changes_of_feeds_are_told_once_when_they_last_and_quiet_markets_are_none() -> None:
    said: list[str] = []
    now = 0.0
    feeds = FeedStates(said.append, lambda: now)

    def after(seconds: float, state: FeedState, reason: str | None = None) -> list[str]:
        """What was said of it, all in all, when the state has lasted so long."""
        nonlocal now
        feeds.take(status("gmo:BTC", state, reason))
        feeds.tell()
        now += seconds
        feeds.tell()
        told = list(said)
        said.clear()
        return told

    assert after(1, "down", "started") == [], "it is over soon"
    assert after(0, "connected") == ["gmo:BTC is connected"]
    assert after(60, "connected") == []
    assert after(60, "silent", "nothing for a minute") == []
    assert after(LASTING_S - 0.1, "down", "lost") == []
    assert after(0, "connected") == [], "nobody has noticed"
    assert after(LASTING_S - 0.1, "down", "lost") == []
    assert after(0.1, "down", "refused") == ["gmo:BTC is down: refused"]
    assert after(LASTING_S, "repairing") == ["gmo:BTC is catching up"]
    assert after(0, "connected") == ["gmo:BTC is connected"]
    feeds.take(status("gmo:ETH", "down"))
    assert str(feeds) == "1 of 2 markets connected"


def test_of_many_changes_at_once_only_the_first_are_told() -> None:
    said: list[str] = []
    now = 0.0
    feeds = FeedStates(said.append, lambda: now)
    for number in range(200):
        feeds.take(status(f"gmo:{number}", "connected"))
    feeds.tell()
    assert len(said) == LINES_A_MINUTE
    assert str(feeds) == "200 of 200 markets connected"
    now = 61.0
    feeds.take(status("gmo:1", "down", "lost"))
    now += LASTING_S
    feeds.tell()
    assert said[LINES_A_MINUTE:] == ["gmo:1 is down: lost"]
