"""Strategies at work on a real Kafka: killed, started again, corrected; and those that do wrong beside others."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from live_samples import (
    FIRST_US,
    MINUTE_US,
    a_candle,
    a_lost_minute,
    candles_of_a_walk,
    contents,
    publish,
    repeated,
    written_signals,
)
from msgspec import Raw, Struct
from msgspec.json import decode

from ashi.contracts.errors import UsageError
from ashi.contracts.signal import Signal, decode_signal
from ashi_sinks.sqlite.reader import SqliteReader
from kafka_topics.grown_topics import grow_when_nobody_works
from servers.stages import get

if TYPE_CHECKING:
    from collections.abc import Callable

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap
    from ashi.runtime.settings import Settings
    from conftest import StartStage

pytestmark = [pytest.mark.kafka, pytest.mark.processes]

FOLLOWS = "following the candles"
MA_CROSS = ("ma_cross", "--symbol", "sim:A", "--symbol", "sim:B", "--fast", "2", "--slow", "5")


def until(condition: Callable[[], bool], timeout_s: float = 90) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it does not come to that"
        time.sleep(0.05)


class Market:
    """The candles of two symbols, as they are now: some are corrected, one comes late, and two never do."""

    def __init__(self, minutes: int) -> None:
        self._random = random.Random(15)
        walks = {symbol: candles_of_a_walk(minutes, seed, symbol) for symbol, seed in (("sim:A", 1), ("sim:B", 2))}
        *lost, self.late = walks["sim:A"][250:253]
        self._coming = sorted((candle for walk in walks.values() for candle in walk), key=in_order)
        self._coming = [candle for candle in self._coming if candle not in {*lost, self.late}]
        self.now: dict[tuple[str, int], Candle] = {}

    def candles(self) -> list[Candle]:
        """All as they are now."""
        return sorted(self.now.values(), key=in_order)

    def next(self, count: int) -> list[Candle]:
        """The next that close."""
        candles, self._coming = self._coming[:count], self._coming[count:]
        return self._take(candles)

    def corrected(self, count: int) -> list[Candle]:
        """Some of the last half an hour, as late trades change them."""
        return self._corrected(self._random.sample(self.candles()[-60:], count))

    def corrected_long_ago(self) -> list[Candle]:
        """One of hours ago, as a rebuild changes it."""
        return self._corrected(self.candles()[20:21])

    def _corrected(self, candles: list[Candle]) -> list[Candle]:
        changed = []
        for known in candles:
            minute = (known.open_time - FIRST_US) // MINUTE_US
            price, version = 1_000 + self._random.randrange(200), known.version + 1_000
            changed.append(a_candle(minute, price, symbol=known.symbol, version=version))
        return self._take(changed)

    def come_late(self) -> list[Candle]:
        """The one that was given up."""
        return self._take([self.late])

    def _take(self, candles: list[Candle]) -> list[Candle]:
        self.now |= {(candle.symbol, candle.open_time): candle for candle in candles}
        return candles


def in_order(candle: Candle) -> tuple[int, str]:
    return candle.close_time, candle.symbol


async def stored(file: Path) -> list[Candle]:
    reader = SqliteReader(file)
    await reader.open()
    try:
        return sorted(
            [candle for symbol in ("sim:A", "sim:B") async for candle in reader.read(symbol, "1m")], key=in_order
        )
    finally:
        await reader.close()


@pytest.mark.slow
def test_a_strategy_that_is_killed_and_started_again_gives_the_signals_of_a_backtest_over_the_same_hours(
    kafka_settings: Settings, start_stage: StartStage, ashi: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """Each kill hits it at work. Candles are corrected while it runs and while it does not; some are lost in a gap.
    Topics are given more partitions, so that a symbol goes on in another one, while it runs and while it does not.

    One is corrected that is older than all that the last process began with.
    """
    market = Market(minutes=400)
    store = f"sqlite:///{tmp_path}/candles.db"

    def signals() -> list[Signal]:
        return asyncio.run(written_signals(kafka_settings))

    def send(*messages: Candle | FeedGap) -> None:
        asyncio.run(publish(kafka_settings, messages))

    start_stage("sink", "sqlite", ASHI_STORAGE=store)
    worker = start_stage("strategy", "run", *MA_CROSS)
    worker.wait_for(FOLLOWS)
    for part in range(4):
        known = len(signals())
        if part == 1:  # the worker and the sink go on
            asyncio.run(grow_when_nobody_works(kafka_settings, kafka_settings.partitions + 3))
        send(*market.next(100))
        until(lambda known=known: len(signals()) > known)  # type: ignore[misc]
        send(*market.corrected(4), *market.next(50))
        worker.kill()
        send(*market.corrected(4), *market.next(50))
        if part == 2:
            asyncio.run(grow_when_nobody_works(kafka_settings, kafka_settings.partitions + 7))
            send(a_lost_minute(250), *market.come_late())
        worker = start_stage("strategy", "run", *MA_CROSS)
        worker.wait_for(FOLLOWS)
    send(*market.corrected(3), *market.corrected_long_ago())
    until(lambda: asyncio.run(stored(tmp_path / "candles.db")) == market.candles())
    result = tmp_path / "backtest.json"
    status, _, err = ashi("strategy", "backtest", *MA_CROSS, "--storage", store, "--output", str(result), "--no-checks")
    assert status == 0, err
    expected = contents(decode_signal(bytes(raw)) for raw in decode(result.read_bytes(), type=BacktestFile).signals)
    until(lambda: contents(signals()) == expected)
    worker.signal(signal.SIGTERM)
    assert worker.process.wait(60) == 0, worker.log.read_text()
    written = signals()
    assert contents(written) == expected
    assert len(expected) >= 100
    assert sum(each.status == "superseded" for each in written) >= 1
    assert '"event":"beginning anew"' in worker.log.read_text()
    assert repeated(written) == []


class BacktestFile(Struct):
    """What of it is looked at."""

    signals: list[Raw]


STRATEGIES = """
import time
from ashi_strategies import Strategy, long

class Own(Strategy):
    startup_candles = 1

    def on_candle(self, candle, series):
        if candle.close > 1_000:
            self.goes_wrong()
        return long()

class Raises(Own):
    def goes_wrong(self):
        raise KeyError("no such thing")

class Blocks(Own):
    def goes_wrong(self):
        time.sleep(3_600)

class Leaks(Own):
    def goes_wrong(self):
        self.kept = [bytearray(b"x") * 20_000_000 for _ in range(20)]
        time.sleep(1)

class Works(Own):
    def goes_wrong(self):
        pass
"""


def own(name: str) -> tuple[str, ...]:
    return ("strategy", "run", f"own_strategies:{name}", "--symbol", "sim:A", "--from", "2020-01-01")


@pytest.mark.slow
def test_a_strategy_that_raises_blocks_or_leaks_is_told_and_others_go_on(
    kafka_settings: Settings, start_stage: StartStage, tmp_path: Path
) -> None:
    (tmp_path / "own_strategies.py").write_text(STRATEGIES)
    env = {
        "PYTHONPATH": str(tmp_path),
        "ASHI_STRATEGY_TIMEOUT": "3s",
        "ASHI_STRATEGY_MEMORY_MB": "400",
    }
    raises, blocks, leaks, works = (start_stage(*own(name), **env) for name in ("Raises", "Blocks", "Leaks", "Works"))
    for stage in (raises, blocks, leaks, works):
        stage.wait_for(FOLLOWS)
    asyncio.run(
        publish(kafka_settings, [a_candle(minute, price) for minute, price in enumerate([998, 999, 1_001, 1_002])])
    )

    address = blocks.address
    until(lambda: get(f"{address}/live")[0] == 503)
    assert "does not return" in get(f"{address}/live")[1]
    assert "ashi_strategy_blocked 1.0" in get(f"{address}/metrics")[1]

    assert raises.process.wait(30) == 1
    log = raises.log.read_text()
    assert '"error":"StrategyError"' in log
    assert "raised KeyError at the 1m candle of sim:A that closed at 2022-01-01" in log
    assert "in goes_wrong" in log, "where it raised"

    assert blocks.process.wait(30) == 1
    log = blocks.log.read_text()
    assert "time.sleep(3_600)" in log, "where it stood"

    assert leaks.process.wait(30) == 1
    assert "ASHI_STRATEGY_MEMORY_MB" in leaks.log.read_text()

    def told() -> dict[str, int]:
        signals = asyncio.run(written_signals(kafka_settings))
        return {name: sum(each.strategy.startswith(name) for each in signals) for name in ("works", "raises", "blocks")}

    until(lambda: told() == {"works": 3, "raises": 1, "blocks": 1})
    assert get(f"{works.address}/live")[0] == 200
    assert get(f"{works.address}/ready")[0] == 200

    # Another class of the same name is none of its processes, and the one that works is not ended for it.
    (tmp_path / "others.py").write_text(STRATEGIES)
    namesake = start_stage("strategy", "run", "others:Works", "--symbol", "sim:A", **env)
    assert namesake.process.wait(30) == UsageError.exit_status
    assert "was run as own_strategies:Works and is others:Works now" in namesake.log.read_text()

    # Of two processes of one strategy the one that was started last goes on.
    later = start_stage(*own("Works"), **env)
    later.wait_for(FOLLOWS)
    asyncio.run(publish(kafka_settings, [a_candle(4, 1_003)]))
    assert works.process.wait(30) == 78
    assert '"error":"InstanceTakenError"' in works.log.read_text()
    until(lambda: told()["works"] == 4)
    assert repeated(asyncio.run(written_signals(kafka_settings))) == []
