"""What docs/maintenance.md tells people to type is typed here, in its order, and ends in the oracle's candles.

Only paths and times are others. The venue is one on this machine, whose trades have ids that follow each other: what
is missing shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import shlex
import signal
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from deltalake import DeltaTable

import waits
from ashi.contracts import Trade
from ashi.contracts.candle import epoch_of
from ashi.contracts.records import trade_in
from ashi.contracts.topics import AGGREGATE_APP, TRADES, TRADES_DEAD, TRADES_LATE
from ashi.runtime.kafka.consuming.groups import members
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings
from ashi_cli.main import main
from ashi_cli.onemachine.broker import Broker
from kafka_topics.fresh_topics import PARTITIONS, delete_topics
from oracle import candles_of, closed, stored, unique
from samples.sqlite_candles import rows_in
from servers.stages import Stage, simulated_venue

PAGE = Path(__file__).parents[2] / "docs" / "maintenance.md"
MARKETS = ("BTCUSDT", "ETHUSDT")
WORKERS = (["sink", "sqlite"], ["sink", "lake"], ["ingest", "binance"])
TIMEFRAMES = "1s,1m,5m"
LATENESS_US = 2_000_000
PATIENCE_S = 90.0
until = partial(waits.until, timeout_s=PATIENCE_S)


def commands_of(section: str) -> list[str]:
    """What is to be typed in a section: the lines of its blocks of code."""
    text = re.split(r"(?m)^## ", PAGE.read_text(encoding="utf-8"))
    (body,) = [part for part in text if part.partition("\n")[0] == section]
    return [line.strip() for line in body.splitlines() if line.startswith("    ") and line.strip().startswith("ashi ")]


class Drill:
    """Types the commands of a section, each in its turn; workers are left running."""

    def __init__(self, section: str, deployment: Deployment) -> None:
        self.left = commands_of(section)
        assert self.left, f"{section} has no commands"
        self._deployment = deployment

    def type(self, beginning: str, *, instead: str | None = None) -> str:
        """Type the next command, which begins so, or `instead`, where it names a time; gives what was typed."""
        command = self.left.pop(0)
        assert command.startswith(beginning), f"the page goes on with {command!r}"
        self._deployment.type(instead or command)
        return instead or command

    def ends(self) -> None:
        assert not self.left, f"not typed: {self.left}"


class Deployment:
    """What was started here, the folder that is `/data` on the page, and a venue."""

    def __init__(self, kafka: Broker, folder: Path, monkeypatch: pytest.MonkeyPatch, venue: Mapping[str, str]) -> None:
        self.folder = folder
        self._stages: dict[str, Stage] = {}
        self._patch = monkeypatch
        self._traded: dict[tuple[str, str], Trade] = {}
        for name, value in venue.items():
            self.environment(name, value)
        self.environment("ASHI_TIMEFRAMES", TIMEFRAMES)
        self.environment("ASHI_KAFKA_BOOTSTRAP", kafka.bootstrap)
        self.environment("ASHI_PARTITIONS", str(PARTITIONS))
        self.environment("ASHI_SINK_BATCH_INTERVAL", "1s")
        self.environment("ASHI_CHECKPOINT_INTERVAL", "100ms")

    def environment(self, name: str, value: str) -> None:
        self._patch.setenv(name, value)

    @property
    def settings(self) -> Settings:
        return Settings.from_environment()

    def type(self, command: str) -> None:
        """Run a command to its end, or start a worker and leave it running until `stop` is called with its words."""
        argv = shlex.split(command.replace("/data/", f"{self.folder}/"))[1:]
        argv = [name for word in argv for name in (files_of(word) if "*" in word else [word])]
        if (argv[:2] not in WORKERS and argv != ["aggregate"]) or "--restore-from" in argv:
            assert main(argv) == 0, command
            return
        log = self.folder / f"{len(list(self.folder.glob('*.log')))}.log"
        stage = self._stages[command] = Stage(self.settings, log, tuple(argv), {})
        stage.wait_for({"aggregate": "ready", "sink": "storing ", "ingest": "connected"}[argv[0]])

    def stop(self, beginning: str = "ashi") -> None:
        """Stop the workers whose commands begin so, ingest first."""
        found = [command for command in self._stages if command.startswith(beginning)]
        for command in sorted(found, key=lambda each: not each.startswith("ashi ingest")):
            stage = self._stages.pop(command)
            stage.signal(signal.SIGTERM)
            assert stage.process.wait(30) == 0, stage.log.read_text()[-3000:]

    def kill(self) -> None:
        """Whatever runs, at once and without a word."""
        for stage in self._stages.values():
            stage.kill()
        self._stages.clear()

    def messages(self, topic: str) -> list[Any]:
        async def read() -> list[Any]:
            return [record async for record in read_topic(self.settings, topic)]

        return asyncio.run(read())

    def trades(self) -> list[Trade]:
        """All that have ever been published, on this Kafka and those before: each once, none of them missed."""
        for record in self.messages(TRADES):
            trade = trade_in(record)
            known = self._traded.setdefault((trade.symbol, trade.trade_id), trade)
            assert content(known) == content(trade)
        ids: dict[str, set[int]] = {}
        for symbol, trade_id in self._traded:
            ids.setdefault(symbol, set()).add(int(trade_id))
        for symbol, known_ids in ids.items():
            missed = set(range(min(known_ids), max(known_ids) + 1)) - known_ids
            assert not missed, f"{len(missed)} trades of {symbol} were missed, the first {min(missed)}"
        return sorted(self._traded.values(), key=lambda trade: (trade.traded_at, trade.sequence))


def files_of(pattern: str) -> list[str]:
    """As a shell gives them."""
    return sorted(map(str, Path(pattern).parent.glob(Path(pattern).name)))


def content(trade: Trade) -> Trade:
    """A trade without when it was received, which differs by the way it came."""
    return msgspec.structs.replace(trade, received_at=0)


def expected_of(trades: list[Trade]) -> dict[Any, Any]:
    return closed(candles_of(trades, TIMEFRAMES.split(",")), trades, LATENESS_US)


def traded_on(path: Path) -> None:
    """Wait until candles of trades of from now on are stored."""
    now_us = time.time_ns() // 1_000
    until("candles of now are stored", lambda: max((row.open_time for row in rows_in(path)), default=0) > now_us)


def until_right(path: Path, deployment: Deployment) -> dict[Any, Any]:
    """Wait until a store has the candles of the oracle, of all that has ever been traded."""
    expected = expected_of(deployment.trades())
    until(f"{path.name} has {len(expected)} candles of the oracle", lambda: stored(rows_in(path)) == expected)
    return expected


@pytest.fixture
def deployment(kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    with simulated_venue("binance", *MARKETS, "--rate", "60", "--seed", "5") as addresses:
        found = Deployment(kafka, tmp_path, monkeypatch, addresses)
        asyncio.run(delete_topics(found.settings))
        try:
            yield found
        finally:
            found.kill()
            monkeypatch.delenv("ASHI_TOPIC_PREFIX", raising=False)
            asyncio.run(delete_topics(found.settings))


@pytest.mark.outside
def test_the_drills_of_the_page_end_in_the_oracles_candles(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    """One deployment goes through all, one after the other: it grows, loses its store, then Kafka, and moves."""
    store = deployment.folder / "candles.db"
    for command in (
        "ashi topics create",
        "ashi aggregate",
        "ashi sink sqlite --storage sqlite:////data/candles.db",
        "ashi sink lake --storage lake:////data/lake",
        "ashi sink lake --storage lake:////data/lake --topic trades",
        "ashi ingest binance BTCUSDT ETHUSDT",
    ):
        deployment.type(command)
    traded_on(store)

    drill = Drill("More partitions", deployment)
    deployment.stop("ashi ingest")
    deployment.stop("ashi aggregate")
    drill.type("ashi topics grow")
    deployment.environment("ASHI_PARTITIONS", "12")
    drill.type("ashi topics check")
    drill.type("ashi aggregate")
    drill.type("ashi ingest")
    drill.ends()
    traded_on(store)
    deployment.stop("ashi ingest")
    expected = until_right(store, deployment)
    assert {epoch_of(row.version) for row in rows_in(store)} <= {0, 1}
    assert not deployment.messages(TRADES_DEAD)

    drill = Drill("A store that is lost", deployment)
    deployment.stop("ashi sink sqlite")
    until("the lake has all candles", lambda: in_lake(deployment, "candles") >= len(expected))
    store.unlink()
    drill.type("ashi sink sqlite")
    said = f"candles: {len(expected):,} read, {len(expected):,} of them were missing or newer"
    assert said in capsys.readouterr().out
    assert stored(rows_in(store)) == expected
    drill.type("ashi sink sqlite")
    drill.type("ashi verify")
    assert stored(rows_in(store)) == expected
    drill.ends()

    # In the middle of trading Kafka goes, with what the lake had not taken yet.
    deployment.type("ashi ingest binance BTCUSDT ETHUSDT")
    traded_on(store)
    deployment.kill()
    deployment.trades()
    # A Kafka that is lost has lost its groups too; this one knows its members until their sessions end.
    until("nobody is in the group", lambda: not asyncio.run(members(deployment.settings, AGGREGATE_APP)))
    asyncio.run(delete_topics(deployment.settings))
    drill = Drill("Kafka is lost, the lake is left", deployment)
    drill.type("ashi topics create")
    drill.type("ashi lake publish")
    drill.type("ashi aggregate reconfigure")
    drill.type("ashi aggregate")
    drill.type("ashi sink lake")
    drill.type("ashi sink sqlite")
    drill.type("ashi ingest")
    traded_on(store)
    drill.type("ashi verify")
    drill.ends()
    # What follows begins in the middle of a minute's window, however fast the machine came here.
    until("a minute has closed", lambda: any(row.timeframe == "1m" for row in rows_in(store)))
    deployment.type("ashi sink lake --storage lake:////data/lake-1 --topic trades")
    deployment.stop("ashi ingest")
    until_right(store, deployment)
    assert max(epoch_of(row.version) for row in rows_in(store)) == 2

    drill = Drill("Another Kafka", deployment)
    count = len(deployment.messages(TRADES))
    until("the lake has all trades", lambda: in_lake(deployment, "trades", "lake-1") == count)
    deployment.stop()
    deployment.environment("ASHI_TOPIC_PREFIX", "new.")
    drill.type("ashi topics create")
    drill.type("ashi topics check")
    newest = max(row.open_time for row in rows_in(store) if row.timeframe == "1m")
    since = iso(newest / 1e6 + 30)  # so that the window in which it begins is not whole
    publish = "ashi lake publish --storage lake:////data/lake-1"
    drill.type("ashi lake publish", instead=f"{publish} --from {since}")
    drill.type("ashi aggregate reconfigure")
    for _ in range(4):
        drill.type("ashi ")
    drill.type("ashi ingest")
    traded_on(store)
    drill.type("ashi verify")
    drill.ends()
    deployment.stop("ashi ingest")
    until_right(store, deployment)
    assert max(epoch_of(row.version) for row in rows_in(store)) == 3


def iso(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat()


def in_lake(deployment: Deployment, table: str, lake: str = "lake") -> int:
    return int(DeltaTable(f"{deployment.folder}/{lake}/{table}").count())


@pytest.mark.outside
def test_what_was_recorded_while_a_venue_changed_its_protocol_is_brought_in_as_the_page_says(
    deployment: Deployment,
) -> None:
    """What was recorded goes in later, some of it too late for its candles, and is rebuilt."""
    store = deployment.folder / "candles.db"
    deployment.type("ashi topics create")
    drill = Drill("A venue changes its protocol", deployment)
    recording = drill.type("ashi ingest binance BTCUSDT ETHUSDT --record")
    until("trades are recorded", lambda: len(deployment.messages(TRADES)) > 500)
    deployment.stop(recording)
    recorded = unique([trade_in(record) for record in deployment.messages(TRADES)])

    deployment.environment("ASHI_TOPIC_PREFIX", "mended.")
    deployment.environment("ASHI_CORRECTION_HORIZON", "2s")
    drill.type("ashi topics create")
    deployment.type("ashi aggregate")
    deployment.type("ashi sink sqlite --storage sqlite:////data/candles.db")
    # Of the time after the recording there are trades already when it is replayed, so that it is late.
    deployment.type("ashi ingest binance BTCUSDT ETHUSDT")
    traded_on(store)
    deployment.stop("ashi ingest")
    drill.type("ashi ingest replay")
    trades = unique([trade_in(record) for record in deployment.messages(TRADES)])
    ids = {(trade.symbol, trade.trade_id) for trade in trades}
    assert ids >= {(trade.symbol, trade.trade_id) for trade in recorded}
    now = time.time()
    hour = f"--from {iso(now - 3_600)} --to {iso(now - 61)}"  # a command for the past, not for the last minute
    drill.type("ashi ingest backfill", instead=f"ashi ingest backfill binance BTCUSDT ETHUSDT {hour}")

    until("late trades are told", lambda: len(deployment.messages(TRADES_LATE)) >= len(recorded))
    first, last = recorded[0].traded_at / 1e6, recorded[-1].traded_at / 1e6
    expected = {key: value for key, value in candles_of(recorded, ["1s"]).items() if first < key[2] / 1e6 < last - 1}
    assert expected
    assert not expected.items() <= stored(rows_in(store)).items()
    rebuild = f"ashi rebuild --from {iso(first - 1)} --to {iso(last)}"
    drill.type("ashi rebuild", instead=rebuild)

    def is_right() -> bool:
        if expected.items() <= stored(rows_in(store)).items():
            return True
        deployment.type(rebuild)  # the workers had not made all of it durable yet
        return False

    until("rebuilt candles are stored", is_right)
    drill.ends()


def test_every_command_of_the_page_is_one_that_ashi_has() -> None:
    """Those that no drill types, too."""
    typed = re.findall(r"`(ashi [a-z][^`]*)`", PAGE.read_text(encoding="utf-8"))
    blocks = [command for section in re.findall(r"(?m)^## (.+)$", PAGE.read_text()) for command in commands_of(section)]
    for command in [*typed, *blocks]:
        words = [word for word in shlex.split(command)[1:] if re.fullmatch(r"[a-z-]+", word)]
        flags = [word for word in shlex.split(command)[1:] if word.startswith("--")]
        shown = help_of(words)
        for flag in flags:
            assert flag in shown, command


def help_of(words: list[str]) -> str:
    for count in range(min(len(words), 2), 0, -1):
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
            try:
                status = main([*words[:count], "--help"])
            except SystemExit as end:
                status = end.code  # type: ignore[assignment]
        if status == 0:
            return output.getvalue()
    raise AssertionError(f"ashi has no command {' '.join(words)}")
