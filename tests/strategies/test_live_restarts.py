"""What a strategy is killed at, and when, on logs in memory: nothing is lost and nothing comes twice."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_samples import MINUTE_US, a_candle, contents, repeated

from ashi.contracts.candle import Candle
from ashi.contracts.signal import Signal
from ashi_series import Closed
from ashi_strategies import Strategy, StrategySeries, Target, flat, long, plans_of, short
from ashi_strategies.engine import Engine
from ashi_strategies.live.beginning import redo_after
from ashi_strategies.live.catching_up import wanted_candles
from ashi_strategies.live.desk import Desk
from ashi_strategies.live.history import History
from ashi_strategies.live.instance import Instance
from ashi_strategies.live.progress import Progress

SYMBOLS = ("sim:A", "sim:B")
MINUTES = 30
REACH = 6
LONG_US = 3_600_000_000


class OneByOne(Strategy):
    """Each symbol by itself: says something of the mean of three."""

    startup_candles = 3

    def on_candle(self, candle: Candle, series: StrategySeries) -> Target | None:
        mean = series.closes().mean()
        if candle.close > mean + 20:
            return long(mean=mean)
        return flat() if candle.close < mean - 20 else None


class Together(Strategy):
    """Both symbols: says which is dearer."""

    symbols_together = True
    startup_candles = 2

    def on_candle(self, candle: Candle, series: StrategySeries) -> Target | None:
        here, there = (series.of(symbol).closes()[-1] for symbol in SYMBOLS)
        return None if abs(here - there) < 20 else long() if here > there else short()


@dataclass
class Kafka:
    """What stands there: a partition for each symbol, the topic of signals, and what was committed last."""

    logs: dict[str, list[Candle]] = field(default_factory=lambda: {symbol: [] for symbol in SYMBOLS})
    signals: list[Signal] = field(default_factory=list)
    committed: tuple[Progress, dict[str, int]] | None = None

    def ends(self) -> dict[str, int]:
        return {symbol: len(log) for symbol, log in self.logs.items()}


class Process:
    """A process of the strategy, as `worker` is one: reads, lets the strategy say its part, writes all or nothing."""

    def __init__(self, kafka: Kafka, instance: Instance, now_us: int) -> None:
        self.kafka = kafka
        wanted = wanted_candles(instance)
        if kafka.committed is None:
            progress, redo_from = Progress(0, 0), 1
        else:
            progress, position = kafka.committed
            newer = [candle for symbol, log in kafka.logs.items() for candle in log[position[symbol] :]]
            redo_from = redo_after(progress, min((candle.close_time for candle in newer), default=None))
        self.began, self.redo_from = progress.began, redo_from
        self.place = kafka.ends()
        history = History(wanted)
        history.add(candle for log in kafka.logs.values() for candle in log)
        margin_us, span_us = 3 * MINUTE_US, max(wanted.values()) * MINUTE_US
        kept_from = max(redo_from - margin_us, self.began + 1)
        candles = [candle for candle in history.in_order() if candle.close_time >= kept_from - 2 * span_us]
        first = candles[0].close_time if candles else kept_from
        known = [signal for signal in kafka.signals if signal.close_time >= first]
        self.desk = Desk(instance, self.began, known, kept_from=kept_from, reach=REACH)
        self.desk.go_over([Closed(candle) for candle in candles], now_us)

    def read(self, symbol: str, count: int, now_us: int) -> None:
        begin = self.place[symbol]
        candles = self.kafka.logs[symbol][begin : begin + count]
        self.place[symbol] += len(candles)
        self.desk.take([Closed(candle) for candle in candles], now_us)

    def tick(self, now_us: int) -> None:
        self.desk.tick(now_us)

    def write(self) -> None:
        self.kafka.signals += self.desk.collect()
        progress = Progress(self.began, max(self.desk.done, self.redo_from - 1))
        self.kafka.committed = progress, dict(self.place)


def histories(chosen: random.Random) -> dict[str, list[Candle]]:
    """What is appended of each symbol: candles in order, some of them again with other prices, some much later."""
    logs: dict[str, list[Candle]] = {}
    for symbol in SYMBOLS:
        due: defaultdict[int, list[Candle]] = defaultdict(list)
        for minute in range(MINUTES):
            if chosen.random() < 0.1:
                continue  # a market has paused
            due[minute].append(a_candle(minute, 1_000 + chosen.randrange(100), symbol=symbol))
            for version in range(chosen.choice([0, 0, 0, 1, 2])):
                price, later = 1_000 + chosen.randrange(100), minute + chosen.choice([0, 1, 2, 5, 20])
                due[later].append(a_candle(minute, price, symbol=symbol, version=1_000 * (version + 1) + minute))
        newest: dict[int, int] = {}
        logs[symbol] = []
        for candle in (each for minute in sorted(due) for each in due[minute]):
            if candle.version > newest.get(candle.open_time, -1):
                newest[candle.open_time] = candle.version
                logs[symbol].append(candle)
    return logs


def run(strategy: type[Strategy], seed: int, kill: float = 0.15) -> tuple[Kafka, list[Signal], int]:
    """A history with processes that are killed; what is in Kafka then, what a backtest says, how often one began."""
    chosen = random.Random(seed)
    instance = Instance(plans_of(strategy, SYMBOLS))
    to_come = histories(chosen)
    kafka, now_us, begun = Kafka(), 1_000, 1
    process = Process(kafka, instance, now_us)
    process.write()
    while any(to_come.values()) or any(process.place[symbol] < end for symbol, end in kafka.ends().items()):
        symbol = chosen.choice(SYMBOLS)
        for _ in range(min(chosen.randrange(4), len(to_come[symbol]))):
            kafka.logs[symbol].append(to_come[symbol].pop(0))
        now_us += chosen.choice([100, 1_000_000, 6_000_000])
        process.read(chosen.choice(SYMBOLS), chosen.randrange(4), now_us)
        if chosen.random() < 0.3:
            process.tick(now_us)
        if process.desk.must_begin_anew or chosen.random() < kill:
            begun += 1
            process = Process(kafka, instance, now_us)
            if chosen.random() < 0.8:
                process.write()
        elif chosen.random() < 0.5:
            process.write()
    process.tick(now_us + LONG_US)
    process.write()
    signals = []
    for plan in instance.plans:
        engine = Engine(plan)
        newest = History(wanted_candles(instance))
        newest.add(candle for log in kafka.logs.values() for candle in log)
        signals += engine.feed([Closed(candle) for candle in newest.in_order()]) + engine.finish()
    return kafka, signals, begun


@pytest.mark.parametrize("strategy", [OneByOne, Together])
@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_wherever_it_is_killed_what_stands_there_is_what_a_backtest_says(strategy: type[Strategy], seed: int) -> None:
    kafka, signals, _ = run(strategy, seed)
    assert contents(kafka.signals) == contents(signals)
    assert repeated(kafka.signals) == []


def test_the_histories_hold_what_they_are_for() -> None:
    runs = [run(Together, seed) for seed in range(20)]
    assert sum(begun for _, _, begun in runs) > 100
    assert any(signal.status == "superseded" for kafka, _, _ in runs for signal in kafka.signals)
    assert any(not signal.all_closed for kafka, _, _ in runs for signal in kafka.signals)
    assert sum(len(contents(signals)) for _, signals, _ in runs) > 200
