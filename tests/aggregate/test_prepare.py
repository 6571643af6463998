"""Candles that are made before their windows close are the candles that would have been made then."""

from __future__ import annotations

import asyncio
import copy
import random
from collections import defaultdict
from decimal import Decimal
from typing import Any

import pytest

from ashi.contracts import Trade, decode_candle, parse_timeframes
from ashi.contracts.candle import Candle, encode_candle
from ashi.contracts.topics import CANDLES
from ashi_aggregate import WindowRules, output, prepare
from ashi_aggregate.quiet import APPEND_TIME
from kafka_topics.simulated_log import Broker, Worker
from samples.hypothesis_strategies import START

TIMEFRAMES = parse_timeframes("1m,5m,1h")
RULES = WindowRules(TIMEFRAMES[0])
SECOND = 1_000_000
HOUR = 3_600 * SECOND
END = START - START % HOUR + HOUR


def publish(broker: Broker, symbol: str, number: int, traded_at: int) -> None:
    price = Decimal(5 + number % 7)
    broker.publish(
        [Trade(symbol, str(number), price, Decimal(1), "buy", traded_at, traded_at, number)], broker.now_us // 1000
    )
    broker.trades[0][-1].timestamp_type = APPEND_TIME


def candles_by_symbol(broker: Broker) -> dict[Any, list[Any]]:
    """Between symbols there is no order."""
    sent = defaultdict(list)
    for key, value, headers in broker.messages(CANDLES):
        sent[key].append((value, headers))
    return sent


async def live_through(broker: Broker, seed: int, *, prepares: bool) -> int:
    """Trades come as they are made, in some disorder, past the end of an hour; how many candles were made ahead."""
    rng, ahead_rng = random.Random(seed), random.Random(seed)
    worker = Worker(broker, TIMEFRAMES, RULES, quiet_close=True, seed=seed)
    await worker.start()
    names = [f"binance:S{number}" for number in range(5)]
    made = 0
    for number in range(110):
        broker.now_us += rng.choice((10_000, 100_000, 700_000, 3 * SECOND))
        for _ in range(rng.randint(0, 2)):
            late_us = rng.choice((0, 50_000, 1_500_000, 2_500_000, 30 * SECOND))
            publish(broker, rng.choice(names), rng.randrange(10**6), broker.now_us - late_us)
        if prepares and ahead_rng.random() < 0.7:
            await worker.pipeline.prepare_candles()
            made += len(worker.pipeline._output._encoded)
        await worker.read(0, rng.randint(1, 9))
        if rng.random() < 0.3:
            await worker.pipeline.checkpoint()
        if number == 60:  # another worker takes over
            worker = Worker(broker, TIMEFRAMES, RULES, quiet_close=True, seed=seed)
            await worker.start()
    await worker.run_to_end()
    return made


def test_what_is_sent_is_the_same_whatever_was_made_ahead_and_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "MANY", 1)
    made = 0
    for seed in range(12):
        broker = Broker(partitions=1)
        broker.now_us = END - 60 * SECOND
        other = copy.deepcopy(broker)
        made += asyncio.run(live_through(broker, seed, prepares=True))
        asyncio.run(live_through(other, seed, prepares=False))
        assert candles_by_symbol(broker) == candles_by_symbol(other), f"seed {seed}"
    assert made > 200, "else nothing was tried"


async def end_of_an_hour(
    symbols: int, encoded: list[Candle], rules: WindowRules = RULES
) -> tuple[list[int], list[bytes]]:
    """So many symbols trade in the last minute, and what is made ahead is made; gives how many candles were encoded.

    Until then; when a trade has come late of the first symbol; and by all windows' closing. And what was sent.
    """
    broker = Broker(partitions=1)
    broker.now_us = END - 10 * SECOND
    worker = Worker(broker, TIMEFRAMES, rules, quiet_close=True)
    await worker.start()
    for number in range(symbols):
        publish(broker, f"binance:S{number}", number, broker.now_us)
    await worker.run_to_end()
    counts = []
    broker.now_us = END + rules.lateness_us // 2 + prepare.MOST_AHEAD_US // 5
    await worker.pipeline.prepare_candles()
    counts.append(len(encoded))
    publish(broker, "binance:S0", symbols, END - 1)
    await worker.read(0, 1)
    counts.append(len(encoded))
    broker.now_us = END + rules.lateness_us + 2 * SECOND
    await worker.pipeline.checkpoint()
    counts.append(len(encoded))
    for _ in range(2):
        broker.now_us += prepare.FORGET_EVERY_US
        await worker.pipeline.prepare_candles()
    kept = worker.pipeline._output
    assert not {**kept._encoded, **kept._encoded_before}, "what was not sent is forgotten"
    return counts, [value for _, value, _ in broker.messages(CANDLES)]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Candle]:
    """The candles that are encoded."""
    found: list[Candle] = []

    def encode(candle: Candle) -> bytes:
        found.append(candle)
        return encode_candle(candle)

    monkeypatch.setattr(output, "encode_candle", encode)
    return found


def test_at_the_end_of_an_hour_only_what_has_changed_meanwhile_is_encoded(encoded: list[Candle]) -> None:
    many = prepare.MANY
    counts, sent = asyncio.run(end_of_an_hour(many, encoded))
    assert counts == [3 * many, 3 * many, 3 * many + 3]
    first = [candle for candle in map(decode_candle, sent) if candle.symbol == "binance:S0"]
    assert [candle.trade_count for candle in first] == [2, 2, 2], "it is in them"
    assert len(sent) == 3 * many


async def ends_of_seconds() -> list[int]:
    """Windows of a second of many symbols, of which some change after they were made; how many encoded are kept."""
    timeframes = parse_timeframes("1s")
    broker = Broker(partitions=1)
    broker.now_us = END
    worker = Worker(broker, timeframes, WindowRules(timeframes[0]), quiet_close=True)
    await worker.start()
    kept = []
    for number in range(40):
        for symbol in range(10):
            publish(broker, f"binance:S{symbol}", 10 * number + symbol, broker.now_us)
        await worker.read(0, 10)
        await worker.pipeline.checkpoint()
        broker.now_us += SECOND
        await worker.pipeline.prepare_candles()
        publish(broker, "binance:S0", 10**6 + number, broker.now_us - 2 * SECOND - 1)  # changes what has been made
        await worker.read(0, 1)
        await worker.pipeline.checkpoint()
        kept.append(len(worker.pipeline._output._encoded) + len(worker.pipeline._output._encoded_before))
    return kept


def test_what_is_not_sent_does_not_pile_up_where_windows_always_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "MANY", 5)
    kept = asyncio.run(ends_of_seconds())
    assert max(kept) > 0, "else nothing was made ahead"
    assert max(kept[20:]) <= max(kept[:20])


def test_nothing_is_made_ahead_of_a_few_symbols_nor_where_windows_do_not_wait(encoded: list[Candle]) -> None:
    counts, sent = asyncio.run(end_of_an_hour(prepare.MANY - 1, encoded))
    assert counts == [0, 0, len(sent)]
    encoded.clear()
    counts, sent = asyncio.run(end_of_an_hour(prepare.MANY, encoded, WindowRules(TIMEFRAMES[0], lateness_us=0)))
    assert counts[0] == 0
    assert len(sent) >= 3 * prepare.MANY
