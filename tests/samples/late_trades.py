"""Logs with trades that come too late, and whether the gaps tell of every candle that lacks one."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from ashi.contracts import Trade
from ashi.contracts.candle import Candle
from ashi.contracts.feed import FeedGap, decode_feed_gap, is_complete
from kafka_topics.simulated_log import Broker
from oracle import candles_of, stored
from samples.hypothesis_strategies import START, drawn_trade

SYMBOLS = [f"binance:S{number}" for number in range(5)]


def newest(gaps: list[FeedGap]) -> dict[tuple[str, int], FeedGap]:
    found: dict[tuple[str, int], FeedGap] = {}
    for gap in gaps:
        before = found.get((gap.symbol, gap.from_time))
        if before is None or gap.updated_at > before.updated_at:
            found[gap.symbol, gap.from_time] = gap
    return found


def scattered(seed: int, count: int) -> list[Trade]:
    rng = random.Random(seed)
    log, clock = [], START
    for sequence in range(count):
        clock += rng.choice([0, 10_000, 900_000, 20_000_000])
        behind = rng.choice([0, 0, 0, rng.randint(0, 2_000_000), rng.randint(0, 400_000_000)])
        log.append(drawn_trade(rng, SYMBOLS, str(sequence), max(clock - behind, START), sequence))
    return log


def said_last(broker: Broker) -> dict[tuple[str, int], FeedGap]:
    return newest([decode_feed_gap(value) for _, value, _ in broker.messages("feed.gaps")])


def best(candles: Iterable[Candle]) -> list[Candle]:
    found: dict[Any, Candle] = {}
    for candle in candles:
        key = candle.symbol, candle.timeframe, candle.open_time
        if key not in found or candle.version > found[key].version:
            found[key] = candle
    return list(found.values())


def check_told(candles: Iterable[Candle], gaps: dict[tuple[str, int], FeedGap], log: list[Trade]) -> tuple[int, int]:
    """No candle that the gaps leave complete lacks a trade of the log; gives how many lack some, and are complete."""
    candles = best(candles)
    whole = candles_of(log, sorted({candle.timeframe for candle in candles}))
    lacking = complete = 0
    for candle in candles:
        key = candle.symbol, candle.timeframe, candle.open_time
        of_symbol = [gap for (symbol, _), gap in gaps.items() if symbol == candle.symbol]
        is_told = is_complete(candle.open_time, candle.close_time, candle.close_time, of_symbol)
        is_whole = stored([candle])[key] == whole[key] if candle.trade_count else key not in whole
        assert is_whole or not is_told, key
        lacking += not is_whole
        complete += is_told
    return lacking, complete
