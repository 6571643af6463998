"""A gap of late trades is ended only when every candle of its time has been counted again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
from msgspec.structs import replace

from ashi.contracts import Trade, decode_trade, parse_timeframes
from ashi.contracts.candle import Candle
from ashi.contracts.feed import FeedGap
from ashi.contracts.late_gaps import LATE_REASON, TAKEN_IN
from ashi.contracts.timeframe import Timeframe
from ashi_aggregate.core.window_state import WindowRules
from ashi_audit.part_recount import PartRecount
from ashi_audit.rebuilt_series import RebuiltSeries
from ashi_audit.recount import LateTrade, SeriesRange, WindowTrades
from ashi_audit.rules import CandleRules
from ashi_audit.sources.base import END_OF_TIME, SourcePart, TradeBatch
from ashi_audit.taken_in import TakenIn
from kafka_topics.simulated_log import Broker, Worker
from samples.hypothesis_strategies import START
from samples.late_trades import check_told, newest, said_last, scattered

MINUTE = 60_000_000
HOUR = 60 * MINUTE
BEGIN = 1_723_161_600_000_000
SYMBOL = "binance:A"
TIMEFRAMES = parse_timeframes("1m,1h")
GAP = FeedGap(SYMBOL, BEGIN + 7 * MINUTE + 1, BEGIN + 8 * MINUTE, "lost", 0, LATE_REASON, BEGIN + HOUR, final=True)


def counted(timeframe: Timeframe, until: int, *traded_at: int) -> SeriesRange:
    windows = [
        WindowTrades(
            timeframe.open_time(at), late=[LateTrade(Trade(SYMBOL, "1", Decimal(1), Decimal(1), "buy", at, at, 1), 1)]
        )
        for at in traded_at
    ]
    return SeriesRange(SYMBOL, timeframe, BEGIN, until, windows, settled=True)


def taken_in(
    *,
    minutes: int = BEGIN + 8 * MINUTE,
    hours: int = BEGIN + HOUR,
    end: int = BEGIN + HOUR,
    whole_from: int = BEGIN,
    read_until: int = END_OF_TIME,
    left: frozenset[tuple[str, str, int]] = frozenset(),
) -> list[FeedGap]:
    found = TakenIn([GAP], TIMEFRAMES, end)
    assert found.has({SYMBOL, "binance:B"})
    assert not found.has({"binance:B"})
    found.note(counted(TIMEFRAMES[0], minutes, BEGIN + 7 * MINUTE, BEGIN + 8 * MINUTE))
    found.note(counted(TIMEFRAMES[1], hours, BEGIN + 7 * MINUTE))
    found.end_part({SYMBOL, "binance:B"}, {SYMBOL: whole_from}, read_until)
    ended, lasting = found.split(left)
    assert len(ended) + len(lasting) == 1
    assert lasting in ([], [GAP])
    return ended


def test_when_all_of_its_candles_are_whole_it_is_repaired_by_the_next_message() -> None:
    assert taken_in() == [
        FeedGap(SYMBOL, GAP.from_time, GAP.to_time, "repaired", 1, TAKEN_IN, GAP.updated_at + 1),
    ]


@pytest.mark.parametrize(
    "less",
    [
        {"minutes": BEGIN + 8 * MINUTE - 1},
        {"hours": BEGIN},
        {"end": BEGIN + 7 * MINUTE},
        {"end": BEGIN},
        {"whole_from": BEGIN + 1},
        {"whole_from": BEGIN + 7 * MINUTE},
        {"read_until": GAP.updated_at},
        {"left": frozenset({(SYMBOL, "1m", BEGIN + 7 * MINUTE)})},
        {"left": frozenset({(SYMBOL, "1h", BEGIN)})},
    ],
)
def test_it_stays_while_a_candle_of_it_is_not_final_not_in_the_range_or_not_known_whole(less: dict) -> None:
    assert taken_in(**less) == []


def test_candles_beside_it_do_not_matter() -> None:
    beside = {(SYMBOL, "1m", BEGIN + at * MINUTE) for at in (6, 8)} | {
        ("binance:B", "1h", BEGIN),
        (SYMBOL, "1h", BEGIN + HOUR),
    }
    assert len(taken_in(left=frozenset(beside))) == 1


NAMES = ["1m", "5m", "15m"]
SERIES = parse_timeframes(",".join(NAMES))
RULES = WindowRules(SERIES[0])


def aggregated(log: list[Trade]) -> Broker:
    broker = Broker(partitions=2)
    for number, trade in enumerate(log):
        broker.publish([trade], START // 1000 + number // 2)
    return broker


async def aggregate(broker: Broker, rules: WindowRules) -> None:
    worker = Worker(broker, SERIES, rules)
    await worker.start()
    await worker.run_to_end()


def part_of(broker: Broker, number: int, stop: int) -> SourcePart:
    records = broker.trades[number][:stop]
    late: dict[str, dict[int, Trade]] = {}
    for partition, offset in broker.late_places():
        if partition == number and offset < stop:
            trade = decode_trade(records[offset].value or b"")
            late.setdefault(trade.symbol, {})[offset] = trade

    async def batches() -> AsyncIterator[TradeBatch]:
        for record in records:
            trade = decode_trade(record.value or b"")
            yield TradeBatch(trade.symbol, [trade], [record.offset])

    async def read_until() -> int:
        later = broker.trades[number][stop:]
        return later[0].timestamp * 1000 if later else END_OF_TIME

    return SourcePart(number, late, 0, batches(), read_until)


async def rebuild(broker: Broker, stops: dict[int, int], epoch: int) -> tuple[list[Candle], list[FeedGap]]:
    """What `ashi rebuild` publishes, and the gaps it ends, when it has read so far."""
    rules = CandleRules(SERIES[0])
    found = TakenIn([gap for gap in said_last(broker).values() if gap.state == "lost"], SERIES, START + 100 * HOUR)
    recount = PartRecount(rules, SERIES, start=0, end=START + 100 * HOUR)
    series: dict[tuple[str, Timeframe], RebuiltSeries] = {}
    candles: list[Candle] = []
    for number, stop in stops.items():
        before = set(recount.seen)
        part = part_of(broker, number, stop)
        async for windows, _ in recount.ranges(part):
            if windows.settled:
                found.note(windows)
                key = windows.symbol, windows.timeframe
                candles += series.setdefault(key, RebuiltSeries(epoch=epoch, max_flat=1_440)).candles(windows)
        assert part.read_until is not None
        found.end_part(recount.seen - before, recount.whole_from, await part.read_until())
    assert recount.unreported == []
    return candles, found.split(set())[0]


@pytest.mark.parametrize("seed", range(4))
def test_a_candle_that_is_called_complete_has_all_trades_after_a_rebuild_and_in_a_new_state_too(seed: int) -> None:
    async def scenario() -> None:
        log = scattered(seed, 500)
        broker = aggregated(log)
        await aggregate(broker, RULES)
        lacking, complete = check_told(broker.candles(), said_last(broker), log)
        assert lacking
        ends = {number: len(records) for number, records in broker.trades.items()}

        # One that has not read to the end, as the markers say: what is late after that stays told.
        candles, ended = await rebuild(broker, {number: end * 2 // 3 for number, end in ends.items()}, 1)
        seen = [*broker.candles(), *candles]
        gaps = newest([*said_last(broker).values(), *ended])
        fewer, more = check_told(seen, gaps, log)
        assert fewer <= lacking
        assert more >= complete

        candles, ended = await rebuild(broker, ends, 2)
        seen += candles
        gaps = newest([*gaps.values(), *ended])
        fewest, most = check_told(seen, gaps, log)
        assert fewest < lacking
        assert most > complete
        assert any(gap.state == "repaired" for gap in gaps.values())

        # A new state makes candles without them again, and wins.
        anew = aggregated(log)
        await aggregate(anew, replace(RULES, epoch=3))
        seen += anew.candles()
        assert check_told(seen, newest([*gaps.values(), *said_last(anew).values()]), log) == (lacking, complete)

    asyncio.run(scenario())
