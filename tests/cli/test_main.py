"""The `ashi` command: usage, exit statuses, what it prints, and what it is made of where no broker is needed."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import resource
import signal
import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from rich.console import Console

from ashi import __version__
from ashi.contracts.candle import Candle, candle_fields
from ashi.contracts.errors import UsageError
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi_cli.main import main
from ashi_cli.onemachine.flow import Progress, StallWatch
from ashi_cli.onemachine.interrupts import Interrupted, Interrupts
from ashi_cli.onemachine.reporter import Reporter
from ashi_cli.onemachine.stack import Stack, StageError, stage_environment, stands_still, work_directory
from ashi_cli.printing.tables import show_candles
from ashi_sinks.registry import make_sink

if TYPE_CHECKING:
    from pathlib import Path

MINUTE = 60_000_000
START = 1_723_161_240_000_000  # 2024-08-08 23:54 UTC
ETH = "binance:ETHUSDT"


def candle(number: int = 0, symbol: str = ETH, timeframe: str = "1m") -> Candle:
    return Candle(
        symbol=symbol,
        timeframe=timeframe,
        open_time=START + number * MINUTE,
        close_time=START + (number + 1) * MINUTE,
        open=Decimal("2683.80"),
        high=Decimal("1E+4"),
        low=Decimal("0.00000001"),
        close=Decimal(2682),
        volume=Decimal("12.5"),
        quote_volume=Decimal("33547.5"),
        trade_count=1234,
        taker_buy_volume=Decimal(0),
        taker_buy_quote_volume=Decimal(0),
        first_trade_id="7",
        last_trade_id=None,
        version=number,
    )


def gap(minute: float, minutes: float | None, state: Any, symbol: str = ETH) -> FeedGap:
    start = START + int(minute * MINUTE)
    end = None if minutes is None else start + int(minutes * MINUTE)
    return FeedGap(symbol, start, end, state, trades_recovered=0, reason="silent", updated_at=START)


def store_gaps(url: str, *gaps: FeedGap) -> None:
    async def fill() -> None:
        sink = make_sink(url)
        await sink.open()
        await sink.write_gaps(gaps)
        await sink.close()

    asyncio.run(fill())


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """A store of 300 minutes of one symbol and one of another."""
    url = f"sqlite:///{tmp_path}/candles.db"

    async def fill() -> None:
        sink = make_sink(url)
        await sink.open()
        await sink.write([*(candle(number) for number in range(300)), candle(symbol="bitflyer:BTC_JPY")])
        await sink.close()

    asyncio.run(fill())
    return url


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "ashi: the following arguments are required: COMMAND (see `ashi --help`)"),
        ("demos", "invalid choice: 'demos'"),
        ("demo --workers 0", "'0' is not a whole number of 1 or more"),
        ("demo --workers two", "'two' is not a whole number"),
        ("demo --timeframes 1m,90s", "is not a multiple of the finest"),
        ("demo --timeframes 7m", "does not divide a day evenly"),
        ("demo --recording monday.gz", "is not VENUE=PATH"),
        ("demo --storage candles.db", "write a URL"),
        ("demo --jso", "unrecognized arguments: --jso"),
        ("broker start --port 70000", "ports are from 1 to 65535"),
        ("topics", "required: ACTION"),
        ("ingest replay x.gz", "required: --venue"),
        ("ingest replay --venue gmo x.csv --columns price", "'price' is not FIELD=COLUMN"),
        ("ingest replay --venue gmo x.csv --columns cost=px", "with a field of id, price, size, side, time, market"),
        ("candles X", "required: TIMEFRAME"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(arguments.split())
    out, err = capsys.readouterr()
    assert ending.value.code == 2
    assert message in err
    assert "--help`)" in err
    assert err.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("demo --recording nasdaq=pyproject.toml", 2, "no venue 'nasdaq': write one of bitflyer, gmo, binance"),
        ("demo --recording binance=/nowhere/x.gz", 2, "/nowhere/x.gz: there is no such file"),
        ("demo --storage mysql://me:secret@host/db", 2, "store 'mysql': known stores are sqlite"),
        ("demo --workdir /dev/null/x", 2, "work directory /dev/null/x cannot be used"),
        ("ingest replay --venue nasdaq x", 2, "there is no venue 'nasdaq'"),
        ("sink mysql", 2, "there is no store 'mysql': write one of sqlite"),
        ("candles X 1m --storage sqlite:////nowhere/x.db", 1, "/nowhere/x.db does not exist"),
        ("candles X 7m", 2, "timeframe '7m' does not divide a day evenly"),
        ("broker status --workdir /nowhere", 1, "no broker runs in /nowhere/broker; start one with"),
    ],
)
def test_errors_are_told_in_words_with_their_status(
    arguments: str,
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    assert main(arguments.split()) == status
    out, err = capsys.readouterr()
    assert message in err
    assert err.startswith("ashi: ")
    assert "secret" not in err
    assert out == ""


def test_a_wrong_setting_is_told_before_the_demo_starts_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASHI_ALLOWED_LATENESS", "2 minutes")
    assert main(["demo", "--workdir", str(tmp_path / "w")]) == 2
    assert "ASHI_ALLOWED_LATENESS '2 minutes' is wrong" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_demo_refuses_a_storage_that_exists(
    by: str, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["demo", "--workdir", str(tmp_path / "w")]
    if by == "option":
        arguments += ["--storage", storage]
    else:
        monkeypatch.setenv("ASHI_STORAGE", storage)
    assert main(arguments) == 2
    assert "exists already and is left as it is: name a new one, or make it anew with --overwrite" in (
        capsys.readouterr().err
    )
    assert main(["candles", ETH, "1m", "--storage", storage, "--limit", "1"]) == 0


def test_the_demo_never_overwrites_a_file_that_is_no_store_of_candles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    diary = tmp_path / "diary.txt"
    diary.write_text("dear diary, " * 1000)
    arguments = ["demo", "--overwrite", "--storage", f"sqlite:///{diary}", "--workdir", str(tmp_path / "w")]
    assert main(arguments) == 1
    assert "is not an SQLite database" in capsys.readouterr().err
    assert diary.read_text().startswith("dear diary, ")


@pytest.mark.parametrize(
    "arguments", ["", "demo", "broker", "broker start", "topics", "topics check", "ingest", "ingest replay", "sink"]
)
def test_every_command_has_help(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main([*arguments.split(), "--help"])
    assert ending.value.code == 0
    assert f"usage: ashi {arguments}".strip() in capsys.readouterr().out


@pytest.mark.processes
def test_help_and_version_load_no_client_library() -> None:
    code = (
        "import sys; from ashi_cli.main import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'aiokafka', 'faust', 'aiohttp', 'sqlite3', 'rich', 'asyncio', 'psutil'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"ashi {__version__}", "[]"]


def test_csv_has_the_names_and_values_of_the_message(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["candles", ETH, "60s", "--storage", storage, "--csv"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[:2] == [
        ",".join([*Candle.__struct_fields__, "feed_gap"]),
        f"{ETH},1m,{START},{START + MINUTE},2683.8,10000,0.00000001,2682,12.5,33547.5,1234,0,0,7,,0,",
    ]
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 300
    wanted = [{k: "" if v is None else str(v) for k, v in candle_fields(candle(n)).items()} for n in range(300)]
    assert rows == [row | {"feed_gap": ""} for row in wanted]


def test_csv_says_which_candles_overlap_a_gap_that_is_not_repaired(
    storage: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ashi_cli.printing.series._CSV_CHUNK", 7)  # gaps lie in one chunk, in two, and where two meet
    store_gaps(
        storage,
        gap(2, 3, "repaired"),
        gap(6, 1, "lost"),  # of its window exactly
        gap(13.5, 1, "open"),  # of two windows
        gap(20.9, 0, "lost"),  # of a moment
        gap(30, 20, "open"),
        gap(40, 1, "lost"),  # within the other
        gap(297.5, None, "open"),  # until now
        gap(60, 1, "lost", symbol="bitflyer:BTC_JPY"),
    )
    assert main(["candles", ETH, "1m", "--storage", storage, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    found = {number: row["feed_gap"] for number, row in enumerate(rows) if row["feed_gap"]}
    assert found == {
        6: "lost",
        13: "open",
        14: "open",
        20: "lost",
        **dict.fromkeys(range(30, 50), "open"),
        40: "lost",
        **dict.fromkeys(range(297, 300), "open"),
    }


def test_a_table_shows_the_latest_candles_in_utc(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["candles", ETH, "1m", "--storage", storage]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 201
    assert err == "only the last 200; --limit N shows more, --csv all\n"

    assert main(["candles", ETH, "1m", "--storage", storage, "--limit", "2"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "open time (UTC)     open   high         low  close  volume  trades",
        "2024-08-09 04:52  2683.8  10000  0.00000001   2682    12.5   1,234",
        "2024-08-09 04:53  2683.8  10000  0.00000001   2682    12.5   1,234",
    ]
    assert err == ""


def test_a_table_marks_the_candles_that_overlap_a_gap_and_says_what_the_marks_mean(
    storage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store_gaps(storage, gap(297, 1, "lost"), gap(298.5, None, "open"), gap(100, 1, "lost"))
    assert main(["candles", ETH, "1m", "--storage", storage, "--limit", "4"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "open time (UTC)     open   high         low  close  volume  trades   gap",
        "2024-08-09 04:50  2683.8  10000  0.00000001   2682    12.5   1,234",
        "2024-08-09 04:51  2683.8  10000  0.00000001   2682    12.5   1,234  lost",
        "2024-08-09 04:52  2683.8  10000  0.00000001   2682    12.5   1,234  open",
        "2024-08-09 04:53  2683.8  10000  0.00000001   2682    12.5   1,234  open",
        "gap open: the feed was interrupted and what was missed is not fetched yet; the candle may still change",
        "gap lost: trades may be missing: they could not be fetched, or came too late for it (see `ashi status`)",
    ]


def test_a_table_whose_gaps_are_repaired_or_elsewhere_has_no_marks(
    storage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store_gaps(storage, gap(0, 299, "repaired"), gap(0, 298, "lost"), gap(300, None, "open"))
    assert main(["candles", ETH, "1m", "--storage", storage, "--limit", "1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "open time (UTC)     open   high         low  close  volume  trades",
        "2024-08-09 04:53  2683.8  10000  0.00000001   2682    12.5   1,234",
    ]


def test_candles_after_what_the_feed_was_checked_up_to_are_marked_unless_a_gap_says_more(
    storage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = START + 298 * MINUTE
    status = FeedStatus(ETH, "connected", START, None, "7", checked, checked, complete_until=checked)

    async def fill() -> None:
        sink = make_sink(storage)
        await sink.open()
        await sink.write_gaps([gap(296, 1, "lost"), gap(299.5, None, "open")])
        await sink.write_statuses([status])
        await sink.close()

    asyncio.run(fill())
    assert main(["candles", ETH, "1m", "--storage", storage, "--limit", "4"]) == 0
    assert [line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines()[1:5]] == [
        "lost",
        "1,234",
        "unchecked",
        "open",
    ]
    assert main(["candles", ETH, "1m", "--storage", storage, "--csv", "--limit", "3"]) == 0
    rows = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert [row["feed_gap"] for row in rows] == ["", "unchecked", "open"]


def test_without_anything_checked_no_candle_of_a_feed_counts_as_complete(
    storage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fill() -> None:
        sink = make_sink(storage)
        await sink.open()
        await sink.write_statuses([FeedStatus(ETH, "connected", START, None, None, None, START)])
        await sink.close()

    asyncio.run(fill())
    assert main(["candles", ETH, "1m", "--storage", storage, "--limit", "1"]) == 0
    assert "gap unchecked: the feed has not been checked up to the candle's end yet" in capsys.readouterr().out


@pytest.mark.parametrize("terminal", [False, True])
def test_a_mark_of_a_gap_stands_in_another_column_than_that_of_an_open_candle(terminal: bool) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100)
    show_candles(console, [candle(), candle(1)], [candle(2)], marks=["", "open"])
    header, *lines = [
        line.rstrip() for line in file.getvalue().splitlines() if "trades" in line or "2024-08-08" in line
    ]
    assert "gap" in header
    assert "open" not in lines[0]
    assert lines[1].index("open") < lines[2].index("open")
    assert ("\x1b[2m" in lines[2]) == terminal  # dim is the candle that is still open, not the one with a gap
    assert "\x1b[2m" not in lines[1]
    assert "gap open: the feed was interrupted" in file.getvalue()


def test_open_candles_are_marked_and_seconds_shown_where_they_matter() -> None:
    for terminal in (False, True):
        file = io.StringIO()
        console = Console(file=file, force_terminal=terminal, width=100)
        second = msgspec.structs.replace(candle(), open_time=START + 1_000_000, timeframe="1s")
        show_candles(console, [candle()], [second])
        lines = [line.rstrip() for line in file.getvalue().splitlines() if "2024-08-08" in line]
        assert len(lines) == 2
        assert "open" not in lines[0]
        assert "2024-08-08 23:54:01" in lines[1]
        assert "open" in lines[1]


def test_an_unknown_series_names_those_there_are(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["candles", "ETHUSDT", "1m", "--storage", storage]) == 2
    assert capsys.readouterr().err == (
        f"ashi: there are no candles of 'ETHUSDT'; there are {ETH}, bitflyer:BTC_JPY; did you mean {ETH}?\n"
    )
    assert main(["candles", ETH, "1h", "--storage", storage]) == 2
    assert f"no 1h candles of {ETH}; there are 1m\n" in capsys.readouterr().err


@pytest.mark.processes
def test_a_reader_that_has_had_enough_is_no_error(storage: str) -> None:
    command = [sys.executable, "-m", "ashi_cli.main", "candles", ETH, "1m", "--storage", storage, "--csv"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


def test_stages_get_every_setting_but_those_about_another_kafka() -> None:
    outside = {
        "PATH": "/bin",
        "ASHI_KAFKA_BOOTSTRAP": "prod:9092",
        "ASHI_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "ASHI_KAFKA_PASSWORD_FILE": "/secret",
        "ASHI_REPLICATION": "3",
        "ASHI_METRICS_PORT": "8000",
        "ASHI_QUIET_CLOSE": "on",
        "ASHI_STORAGE_FILE": "/storage",
        "ASHI_ALLOWED_LATENESS": "5s",
        "ASHI_TIMEFRAMES": "1s",
        "ASHI_LOG_FORMAT": "json",
    }
    inside = stage_environment(outside, bootstrap="127.0.0.1:1", storage="sqlite:///x", timeframes=None)
    assert inside == {
        "PATH": "/bin",
        "ASHI_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "ASHI_METRICS_PORT": "0",
        "ASHI_QUIET_CLOSE": "off",
        "ASHI_STORAGE": "sqlite:///x",
        "ASHI_ALLOWED_LATENESS": "5s",
        "ASHI_TIMEFRAMES": "1s",
        "ASHI_LOG_FORMAT": "json",
    }
    chosen = stage_environment(outside, bootstrap="b:1", storage="s", timeframes="1m")
    assert chosen["ASHI_TIMEFRAMES"] == "1m"
    assert stage_environment({}, bootstrap="b:1", storage="s", timeframes=None)["ASHI_LOG_FORMAT"] == "console"


@pytest.mark.processes
def test_a_stage_that_ends_is_named_with_its_last_words(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "logs", {**os.environ, "ASHI_METRICS_PORT": "no port"})
    stage = stack.start("aggregate-1", ["aggregate"])
    stage.process.wait(30)
    stack.check(expected_to_end=stage)
    with pytest.raises(StageError) as dead:
        stack.check()
    stack.stop()
    assert "stage aggregate-1 ended with status 2 before the work was done" in str(dead.value)
    assert f"Its log {tmp_path}/logs/aggregate-1.log ends with:" in str(dead.value)
    assert "ASHI_METRICS_PORT 'no port' is wrong" in str(dead.value)
    assert "aggregate-1 has made no progress for 120 s" in str(stands_still(stage, 120))


def test_only_work_that_is_there_and_does_not_move_counts_as_standing_still() -> None:
    now = 0.0
    watch = StallWatch(120, clock=lambda: now)
    assert not watch.stalled("sink", 0, busy=True)
    now = 119
    assert not watch.stalled("sink", 0, busy=True)
    assert not watch.stalled("aggregate", 7, busy=True)
    now = 120
    assert watch.stalled("sink", 0, busy=True)
    assert not watch.stalled("aggregate", 7, busy=True), "each stage has its own clock"
    assert not watch.stalled("sink", 1, busy=True), "it moved"
    now = 239
    assert not watch.stalled("sink", 1, busy=False), "it has nothing to do"
    now = 300
    assert not watch.stalled("sink", 1, busy=True), "its idle time does not count"


def test_progress_is_complete_when_nothing_is_on_the_way() -> None:
    assert Progress(2, 2, 1, 1).all_aggregated
    assert Progress(2, 2, 1, 1).all_stored
    assert not Progress(2, 1, 1, 1).all_aggregated
    assert not Progress(2, 2, 1, 0).all_stored
    assert "14,677 published" in str(Progress(14_677, 0, 0, 0))


def test_a_log_gets_progress_only_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("ashi_cli.onemachine.reporter.time.monotonic", lambda: now)
    file = io.StringIO()
    with Reporter(file) as reporter:
        reporter.update("1 of 3")
        now = 2.0
        reporter.update("2 of 3")
        now = 4.0
        reporter.update("2 of 3")
        reporter.say("[3] of 3")
    assert file.getvalue() == "2 of 3\n[3] of 3\n"


@pytest.mark.processes
def test_a_work_directory_holds_one_command(tmp_path: Path) -> None:
    with work_directory(tmp_path / "w", "ashi up"):
        code = f"""
from pathlib import Path
from ashi_cli.onemachine.stack import work_directory
with work_directory(Path({str(tmp_path / "w")!r}), "ashi demo"): pass
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another `ashi up` is running in" in done.stderr
        assert done.returncode != 0
    with work_directory(tmp_path / "w", "ashi up"):
        pass
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match="choose one that you may write to"),
        work_directory(tmp_path / "file", "ashi up"),
    ):
        pass


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_interrupts_plain_code_and_coroutines_and_waits_for_what_must_end(
    number: signal.Signals, status: int
) -> None:
    before = signal.getsignal(number)
    steps: list[str] = []
    with Interrupts() as interrupts, pytest.raises(Interrupted) as plain:
        os.kill(os.getpid(), number)
    assert plain.value.exit_status == status

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(30)
        finally:
            steps.append("cleaned")

    with Interrupts() as interrupts, pytest.raises(Interrupted):
        interrupts.run(work())
    assert steps == ["cleaned"]

    def stop_everything() -> None:
        with interrupts.held():
            os.kill(os.getpid(), number)
            steps.append("finished")

    with Interrupts() as interrupts, pytest.raises(Interrupted):
        stop_everything()
    assert steps == ["cleaned", "finished"]
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("ignored", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_whoever_started_us_has_ignored_stays_ignored(ignored: signal.Signals) -> None:
    before = signal.signal(ignored, signal.SIG_IGN)
    try:
        with Interrupts():
            os.kill(os.getpid(), ignored)
            assert signal.getsignal(ignored) is signal.SIG_IGN
        with Interrupts(), pytest.raises(Interrupted) as stopped:
            os.kill(os.getpid(), signal.SIGTERM)
        assert stopped.value.signal is signal.SIGTERM
    finally:
        signal.signal(ignored, before)


def test_a_coroutine_that_no_signal_meets_gives_its_result() -> None:
    async def work() -> int:
        return 7

    with Interrupts() as interrupts:
        assert interrupts.run(work()) == 7


@pytest.mark.parametrize(
    "arguments",
    [
        "verify --trades {url}",
        "verify sqlite:///x.db --klines {url}",
        "verify {url} --storage {url} --trades",
        "rebuild --from 2026-11-01 --to 2026-11-02 --trades {url}",
        "sink {url}",
        "candles binance:ETHUSDT {url}",
        "candles {url} 1m",
        "candles {url} binance:ETHUSDT 1m",
        "lake compact --storage {url}",
        "topics check {url}",
    ],
)
def test_a_password_is_never_shown_wherever_a_storage_url_is_written_by_mistake(capsys, arguments):
    try:
        status: Any = main(arguments.format(url="postgresql://ashi:hun%2Fter/2@127.0.0.1:1/market").split())
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    assert status
    assert err
    assert "hun" not in out + err


def test_a_command_leaves_no_core_behind() -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        with pytest.raises(SystemExit):
            main(["--version"])
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
