"""What was signalled and not taken back is a function of the final candles, and of nothing else."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategy_samples import Memory, Views, a_candle, a_plan, content, oracle

from ashi.contracts.candle import Candle
from ashi.contracts.signal import Signal, decode_signal, encode_signal, signal_rank, signal_slot
from ashi_series.events import Closed, Corrected, InProgress
from ashi_strategies import Plan
from ashi_strategies.engine import Engine
from samples.candles import BTC, ETH, FIRST_US, MINUTE_US

EXAMPLES = int(os.environ.get("ASHI_EXAMPLES", "150"))
SERIES = [
    ([BTC], ["1m"]),
    ([BTC], ["1m", "2m"]),
    ([BTC, ETH], ["1m"]),
    ([BTC, ETH], ["1m", "3m"]),
]


class Topic:
    """What stands in topic `signals`, and what it must never hold."""

    def __init__(self) -> None:
        self.newest: dict[Any, Signal] = {}
        self.superseded = 0

    def publish(self, signals: list[Signal]) -> None:
        for signal in signals:
            assert decode_signal(encode_signal(signal)) == signal
            known = self.newest.get(signal_slot(signal))
            if signal.status == "superseded":
                assert known is not None
                assert known.status == "active"
                assert (signal_rank(signal), content(signal)) == (signal_rank(known) + 1, content(known))
                self.superseded += 1
            elif known is not None:
                assert known.status == "superseded", "a signal that holds was changed in silence, or came twice"
                assert signal_rank(signal) > signal_rank(known)
            self.newest[signal_slot(signal)] = signal

    def holds(self) -> dict[Any, Any]:
        return {
            (signal.symbol, signal.timeframe, signal.close_time): content(signal)
            for signal in self.newest.values()
            if signal.status == "active"
        }


def final_candles(rng: random.Random, symbols: list[str], timeframes: list[str]) -> list[Candle]:
    """Of each series some minutes, with holes."""
    minutes = rng.randint(4, 24)
    missing = rng.choice([0, 0, 0.1, 0.3])
    return [
        a_candle(window, rng.randint(1, 3), rng.randint(1, 5), symbol, timeframe)
        for symbol in symbols
        for timeframe in timeframes
        for window in range(minutes // int(timeframe[:-1]))
        if rng.random() >= missing
    ]


def deliveries(rng: random.Random, candles: list[Candle]) -> list[Candle]:
    """The candles as they come: roughly in time, some late, some again, some first in another version."""
    disorder = rng.choice([0, 1, 3, 100]) * MINUTE_US
    coming = []
    for candle in candles:
        at = candle.close_time + rng.randint(0, disorder)
        coming.append((at, candle))
        if rng.random() < 0.3:
            earlier = a_candle_like(candle, rng.randint(1, 3), rng.randint(0, candle.version - 1))
            coming.append((at + rng.randint(-MINUTE_US, disorder), earlier))
        if rng.random() < 0.1:
            coming.append((at + rng.randint(0, disorder), candle))
    return [candle for _, candle in sorted(coming, key=lambda one: one[0])]


def a_candle_like(candle: Candle, close: int, version: int) -> Candle:
    length = candle.close_time - candle.open_time
    return a_candle((candle.open_time - FIRST_US) // length, close, version, candle.symbol, candle.timeframe)


def live(rng: random.Random, plan: Plan, candles: list[Candle], since: int) -> Topic:
    """A live run: a clock that ticks, and crashes between the signals of a step and their publishing."""
    topic, had = Topic(), list[Candle]()
    engine, now = Engine(plan, since=since), FIRST_US
    restarts = rng.choice([0, 0.05, 0.2])
    coming = deliveries(rng, candles)
    while coming:
        count = rng.choice([1, 1, 1, 2, 5])
        arrived, coming = coming[:count], coming[count:]
        had += arrived
        now += rng.choice([0, 1_000_000, 3_000_000, 6_000_000])
        events: list[Any] = [rng.choice([Closed(candle), Corrected(candle, None)]) for candle in arrived]
        given_now = engine.feed([*events, InProgress(arrived[0])], now)
        if rng.random() < 0.7:
            given_now += engine.tick(now)
        if rng.random() < restarts:
            topic.publish(given_now[: rng.randint(0, len(given_now))])
            known = list(topic.newest.values())
            engine = Engine(plan, since=since, known=known)
            history = had[:]
            rng.shuffle(history)
            given_now = engine.feed(map(Closed, history), now)
        topic.publish(given_now)
    topic.publish(engine.finish())
    return topic


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    strategy=st.sampled_from([Views, Memory]),
    series=st.sampled_from(SERIES),
    length=st.integers(1, 3),
)
def test_what_a_live_run_has_signalled_is_what_a_backtest_signals(
    seed: int, strategy: Any, series: Any, length: int
) -> None:
    rng = random.Random(seed)
    plan = a_plan(strategy, *series, length=length)
    candles = final_candles(rng, *series)
    since = rng.choice([0, FIRST_US + rng.randint(0, 10) * MINUTE_US])
    wanted = {slot: said for slot, said in oracle(plan, candles).items() if slot[2] > since}

    assert live(rng, plan, candles, since).holds() == wanted

    backtest, topic = Engine(plan, since=since), Topic()
    for candle in sorted(candles, key=lambda one: one.close_time):
        topic.publish(backtest.feed([Closed(candle)]))
    topic.publish(backtest.finish())
    assert topic.holds() == wanted
    assert topic.superseded == 0


def test_the_runs_that_are_tried_take_signals_back_and_give_many() -> None:
    """What the property says of nothing would be nothing."""
    given_in_all = superseded = 0
    for seed in range(40):
        rng = random.Random(seed)
        plan = a_plan(Memory, *SERIES[seed % 4], length=1 + seed % 2)
        topic = live(rng, plan, final_candles(rng, *SERIES[seed % 4]), 0)
        given_in_all += len(topic.holds())
        superseded += topic.superseded
    assert given_in_all > 150
    assert superseded > 150


@pytest.mark.parametrize("series", SERIES, ids=str)
def test_a_run_with_little_history_says_the_same_once_it_has_had_enough(series: Any) -> None:
    """What an engine keeps is bounded, and so is what a restart needs."""
    rng = random.Random(5)
    plan = a_plan(Memory, *series, length=2)
    candles = [
        a_candle(window, rng.randint(1, 3), 1, symbol, timeframe)
        for symbol in series[0]
        for timeframe in series[1]
        for window in range(120 // int(timeframe[:-1]))
    ]
    in_order = sorted(candles, key=lambda one: one.close_time)
    since = FIRST_US + 60 * MINUTE_US
    wanted = {slot: said for slot, said in oracle(plan, candles).items() if slot[2] > since}
    history = {
        key: [
            one for one in in_order if (one.symbol, one.timeframe) == (key[0], str(key[1])) and one.close_time <= since
        ]
        for key in plan.startup
    }
    needed = [one for key, count in plan.history.items() for one in history[key][-count:]]
    engine, topic = Engine(plan, since=since, reach=4), Topic()
    assert engine.feed(map(Closed, needed)) == []
    assert engine.is_warm
    topic.publish(engine.feed([Closed(one) for one in in_order if one.close_time > since]))
    topic.publish(engine.finish())
    assert topic.holds() == wanted
