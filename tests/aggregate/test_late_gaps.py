"""Trades that came too late leave gaps, so that no candle that lacks them is called complete."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from ashi.contracts import Trade, decode_trade, parse_timeframes
from ashi.contracts.feed import decode_feed_gap, encode_feed, overlaps
from ashi.contracts.late_gaps import is_late_gap
from ashi.contracts.trade import EARLIEST_US, LATEST_US
from ashi_aggregate.core.symbol import LateTrade
from ashi_aggregate.core.window_state import LateReason, WindowRules
from ashi_aggregate.late_gaps import late_gaps
from ashi_ingest.feed.reporting.partner_gaps import GapsInTopic
from kafka_topics.simulated_log import Broker, Crash, Worker
from samples.hypothesis_strategies import START
from samples.late_trades import check_told, newest, said_last, scattered

NAMES = ["1m", "5m", "1h"]
TIMEFRAMES = parse_timeframes(",".join(NAMES))
RULES = WindowRules(TIMEFRAMES[0])
SYMBOL = "binance:A"
MINUTE = 60_000_000
HOUR = 60 * MINUTE


def late(traded_at: int, appended_ms: int = START // 1000, symbol: str = SYMBOL) -> tuple[Any, LateTrade]:
    trade = Trade(symbol, "1", Decimal(5), Decimal(1), "buy", traded_at, traded_at, 1)
    record: Any = SimpleNamespace(timestamp=appended_ms)
    return record, LateTrade(trade, 0, traded_at + HOUR, LateReason.BEYOND_HORIZON)


def test_thousands_of_late_trades_of_a_minute_are_one_gap_that_covers_each_of_their_candles_and_no_other() -> None:
    begin = START - START % HOUR + 7 * MINUTE
    [gap] = late_gaps([late(begin + number * 10_000) for number in range(6_000)], TIMEFRAMES, 0)
    assert is_late_gap(gap)
    assert decode_feed_gap(encode_feed(gap)) == gap
    for length, open_time in ((MINUTE, begin), (5 * MINUTE, begin - 2 * MINUTE), (HOUR, begin - 7 * MINUTE)):
        assert overlaps(gap, open_time, open_time + length)
        assert not overlaps(gap, open_time - length, open_time)
        assert not overlaps(gap, open_time + length, open_time + 2 * length)
    assert "`ashi rebuild --from 20" in gap.reason
    assert gap.reason.endswith(f":00:00Z --symbol {SYMBOL}` takes them in")


@pytest.mark.parametrize(("finest", "minutes"), [("1s", 1), ("25s", 1.25), ("1m", 1), ("1h", 60)])
def test_there_are_at_most_as_many_gaps_as_minutes_or_as_finest_windows(finest: str, minutes: float) -> None:
    timeframes = parse_timeframes(f"{finest},1d")
    gaps = late_gaps([late(START + second * 1_000_000) for second in range(4 * 3_600)], timeframes, 0)
    assert len(gaps) <= 240 / minutes + 1
    assert all(before.to_time == after.from_time - 1 for before, after in pairwise(gaps))
    assert {gap.to_time % timeframes[0].length_us for gap in gaps if gap.to_time} == {0}


def test_what_is_said_last_is_the_same_in_whatever_pieces_the_log_is_read() -> None:
    rng = random.Random(1)
    trades = [late(START + rng.randrange(10 * MINUTE), START // 1000 + number // 3) for number in range(200)]
    at_once = newest(late_gaps(trades, TIMEFRAMES, 3))
    for _ in range(20):
        said, place = [], 0
        while place < len(trades):
            count = rng.randint(1, 40)
            said += late_gaps(trades[place : place + count], TIMEFRAMES, 3)
            place += count if rng.random() < 0.7 else -rng.randint(0, min(place, 5))
        assert newest(said) == at_once


def test_a_later_trade_and_a_later_epoch_count_against_a_rebuild_and_a_replay_does_not() -> None:
    [gap] = late_gaps([late(START, 1_700_000_000_000)], TIMEFRAMES, 4)
    repaired_at = gap.updated_at + 1
    [again] = late_gaps([late(START + 1, 1_700_000_000_001)], TIMEFRAMES, 4)
    [anew] = late_gaps([late(START, 1_700_000_000_000)], TIMEFRAMES, 5)
    [replayed] = late_gaps([late(START, 1_700_000_000_000)], TIMEFRAMES, 4)
    assert {each.from_time for each in (gap, again, anew, replayed)} == {gap.from_time}
    assert replayed.updated_at < repaired_at < min(again.updated_at, anew.updated_at)


@pytest.mark.parametrize("traded_at", [EARLIEST_US, LATEST_US])
@pytest.mark.parametrize("appended_ms", [-1, LATEST_US // 1000 + 1])
def test_the_gap_keeps_the_contract_at_both_ends_of_time(traded_at: int, appended_ms: int) -> None:
    [gap] = late_gaps([late(traded_at, appended_ms)], TIMEFRAMES, 8_191)
    assert decode_feed_gap(encode_feed(gap)) == gap
    assert gap.updated_at < LATEST_US


def test_workers_of_feeds_have_no_part_in_it() -> None:
    gaps = GapsInTopic()
    for gap in late_gaps([late(START)], TIMEFRAMES, 0):
        gaps.take(gap)
    assert list(gaps.symbols()) == []
    assert gaps._gaps == {}


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_any_send_a_worker_has_told_of_every_candle_that_lacks_a_trade(seed: int, native: bool) -> None:
    async def scenario() -> None:
        rng = random.Random(seed)
        log = scattered(seed, 150)
        broker = Broker(partitions=3)
        for number, trade in enumerate(log):
            broker.publish([trade], START // 1000 + number // 2)
        for life in range(12):
            crash_after = rng.randint(0, 60)
            worker = Worker(broker, TIMEFRAMES, RULES, seed=seed + life, crash_after=crash_after, native=native)
            await worker.start()
            try:
                for _ in range(rng.randint(1, 12)):
                    for partition in list(worker.next):
                        await worker.read(partition, rng.randint(1, 9))
                    if rng.random() < 0.5:
                        await worker.pipeline.checkpoint()
            except Crash:
                continue
        last = Worker(broker, TIMEFRAMES, RULES, seed=seed, native=native)
        await last.start()
        await last.run_to_end()
        places = sorted(broker.late_places())
        trades = [
            (record, LateTrade(decode_trade(record.value or b""), 0, 0, LateReason.BEYOND_HORIZON))
            for record in (broker.trades[partition][offset] for partition, offset in places)
        ]
        assert said_last(broker) == newest(late_gaps(trades, TIMEFRAMES, 0))
        lacking, complete = check_told(broker.candles(), said_last(broker), log)
        assert lacking, "no candle lacks a trade: the test is void"
        assert complete

    asyncio.run(scenario())
