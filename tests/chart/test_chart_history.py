"""Pages of a series: what a store has, joined with what is newer, against all parts sorted and rolled up at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import ClassVar

import msgspec
from chart_samples import StoreInMemory, candles_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ashi.contracts import Candle, Timeframe
from ashi.contracts.feed import FeedGap
from ashi.contracts.venue_candle import VenueCandle
from ashi_chart.candles.bars import CLOSED, COMPLETE, VENUE, bar_of
from ashi_chart.candles.coverage import Coverage
from ashi_chart.candles.rolling import RollingSeries, Tail
from ashi_chart.candles.rollup import Rolled, Rollup
from ashi_chart.candles.timeframes import ChartTimeframe
from ashi_chart.series.history import History, HistoryPage
from ashi_sinks.joined import WithVenueCandles
from samples.candles import BTC, FIRST_US, MINUTE_US, a_candle


def rollup(target: str = "5m") -> Rollup:
    return Rollup(Timeframe.parse("1m"), ChartTimeframe.parse(target))


def part(number: int, version: int = 1) -> Candle:
    return a_candle(number, version, price=str(number * 7 % 11 + version), volume=Decimal(number + version))


def page(
    stored: list[Candle],
    before: int | None = None,
    limit: int = 1000,
    tail: Tail | None = None,
    target: str = "5m",
) -> HistoryPage:
    return asyncio.run(History(StoreInMemory(stored)).page(BTC, rollup(target), before, limit, tail or Tail()))


numbers = st.sets(st.integers(0, 60), max_size=40)


@settings(max_examples=300)
@given(
    known=numbers,
    lag=st.integers(0, 70),
    corrected=st.sets(st.integers(0, 60), max_size=5),
    ahead=st.sets(st.integers(61, 70), max_size=2),
    before=st.one_of(st.none(), st.integers(-2, 75 * 60)),
    limit=st.integers(1, 30),
    target=st.sampled_from(["1m", "5m", "15m"]),
)
def test_a_page_is_the_newest_of_all_parts_rolled_up_at_once(
    known: set[int],
    lag: int,
    corrected: set[int],
    ahead: set[int],
    before: int | None,
    limit: int,
    target: str,
) -> None:
    how = rollup(target)
    stored = [part(number) for number in known if number <= lag]
    newer = [part(number, 2 if number in corrected else 1) for number in known if number > lag or number in corrected]
    in_progress = [part(number) for number in ahead]
    until = None if before is None else FIRST_US + before * 1_000_000
    got = page(stored, until, limit, Tail(newer, in_progress), target)

    closed = sorted((part(number, 2 if number in corrected else 1) for number in known), key=lambda c: c.open_time)
    through = max((candle.close_time for candle in closed), default=-1)
    open_windows = {how.window_of(candle.open_time)[0] for candle in in_progress}
    everything = sorted([*closed, *in_progress], key=lambda candle: candle.open_time)
    first = everything[0].open_time if everything else 0
    expected = [
        Rolled(
            candle,
            closed=candle.close_time <= through and candle.open_time not in open_windows,
            whole=first <= candle.open_time,
        )
        for candle in candles_of(how, everything)
        if until is None or candle.open_time < until
    ]
    assert got.rolled == expected[-limit:]
    assert got.more == (len(expected) > limit)
    assert got.parts == [c for c in closed if got.since <= c.open_time and (until is None or holds(how, c, until))]
    if before is None:
        series = RollingSeries(BTC, how, got.since)
        for candle in got.parts:
            series.fill(candle)
        for candle in in_progress:
            series.update(candle)
        assert series.newest(limit) == got.rolled


def holds(how: Rollup, candle: Candle, before: int) -> bool:
    """Whether the candle's window opens before that time."""
    return how.window_of(candle.open_time)[0] < before


@settings(max_examples=50)
@given(known=numbers, limit=st.integers(1, 7), target=st.sampled_from(["1m", "5m", "15m"]))
def test_page_after_page_back_to_the_beginning_there_is_everything_once(
    known: set[int], limit: int, target: str
) -> None:
    stored = [part(number) for number in known]
    pages = [page(stored, None, limit, target=target)]
    while pages[-1].more:
        pages.append(page(stored, pages[-1].rolled[0].candle.open_time, limit, target=target))
    got = [rolled.candle for each in reversed(pages) for rolled in each.rolled]
    assert got == candles_of(rollup(target), sorted(stored, key=lambda candle: candle.open_time))
    assert all(len(each.rolled) == limit for each in pages[:-1])


def test_a_bar_whose_last_parts_are_missing_is_closed_once_a_later_one_is_stored() -> None:
    stored = [part(0), part(1)]
    [last] = page(stored, before=FIRST_US + 5 * MINUTE_US).rolled
    assert not last.closed
    [last] = page([*stored, part(20)], before=FIRST_US + 5 * MINUTE_US).rolled
    assert last.closed


def test_what_a_store_lacks_of_what_the_tail_has_let_go_of_is_named() -> None:
    stored, tail = [part(number) for number in range(10)], [part(number) for number in range(20, 30)]
    let_go_until = FIRST_US + 15 * MINUTE_US
    assert page(stored, tail=Tail(tail, let_go_until=let_go_until)).lacking == (FIRST_US + 10 * MINUTE_US, let_go_until)
    assert page([], tail=Tail(tail, let_go_until=let_go_until)).lacking == (0, let_go_until)
    assert page(stored, tail=Tail(tail, let_go_until=FIRST_US + 10 * MINUTE_US)).lacking is None
    older = page(stored, FIRST_US + 15 * MINUTE_US, tail=Tail(tail, let_go_until=FIRST_US + 20 * MINUTE_US))
    assert older.lacking == (FIRST_US + 10 * MINUTE_US, FIRST_US + 15 * MINUTE_US)
    assert page(stored, FIRST_US + 10 * MINUTE_US, tail=Tail(tail, let_go_until=let_go_until)).lacking is None
    after_a_pause = page([*stored, part(25)], FIRST_US + 15 * MINUTE_US, tail=Tail(tail, let_go_until=let_go_until))
    assert after_a_pause.lacking is None


def test_the_parts_of_a_window_come_with_whether_the_series_began_before() -> None:
    def window(*stored: Candle) -> tuple[list[Candle], bool]:
        return asyncio.run(History(StoreInMemory(list(stored))).window(BTC, rollup(), FIRST_US + 5 * MINUTE_US))

    assert window(part(5), part(9), part(10)) == ([part(5), part(9)], True)
    assert window(part(6)) == ([part(6)], False)
    assert window(part(0), part(6)) == ([part(6)], True)
    assert window(part(0)) == ([], True)


def test_of_a_gap_that_is_stored_and_known_the_last_word_counts() -> None:
    def gap(number: int, updated: int, minutes: int | None = 1) -> FeedGap:
        start = FIRST_US + number * MINUTE_US
        end = None if minutes is None else start + minutes * MINUTE_US
        return FeedGap(BTC, start, end, "open", 0, f"said at {updated}", FIRST_US + updated)

    stored = [gap(0, 1), gap(5, 7), gap(8, 1, None), gap(50, 1)]
    known = [gap(0, 1), gap(5, 6), gap(6, 2), gap(8, 2)]
    history = History(StoreInMemory([], stored))
    got = asyncio.run(history.gaps(BTC, FIRST_US, FIRST_US + 10 * MINUTE_US, known))
    assert got == [gap(0, 1), gap(5, 7), gap(6, 2), gap(8, 2)]


def test_a_page_of_a_long_timeframe_reads_no_more_than_a_bound() -> None:
    class Asked(StoreInMemory):
        limits: ClassVar[list[int | None]] = []

        async def read(
            self,
            symbol: str,
            timeframe: str,
            start: int | None = None,
            end: int | None = None,
            limit: int | None = None,
        ) -> AsyncIterator[Candle]:
            self.limits.append(limit)
            async for candle in super().read(symbol, timeframe, start, end, limit):
                yield candle

    stored = [part(number) for number in range(60)]
    day = Rollup(Timeframe.parse("1m"), ChartTimeframe.parse("1d"))
    got = asyncio.run(History(Asked(stored)).page(BTC, day, limit=20_000))
    assert Asked.limits == [34 * 1440 + 1]
    assert [rolled.candle for rolled in got.rolled] == candles_of(day, stored)


def test_amounts_are_those_of_the_store_to_the_last_digit() -> None:
    stored = msgspec.structs.replace(part(0), volume=Decimal("0.1234567890123456789012345678901234567890"))
    assert page([stored], target="1m").rolled[0].candle is stored


def a_venue_candle(number: int) -> VenueCandle:
    candle = part(number)
    known = {name: getattr(candle, name) for name in VenueCandle.__struct_fields__ if hasattr(candle, name)}
    unknown = {"quote_volume": None, "trade_count": None, "taker_buy_volume": None, "taker_buy_quote_volume": None}
    return VenueCandle(**(known | unknown), source="venue", fetched_at=1)


def test_the_venues_own_candles_fill_in_where_there_are_none_of_trades_and_are_marked() -> None:
    store = StoreInMemory([part(6), part(9)], venue=[a_venue_candle(number) for number in range(8)])

    def flags(target: str) -> list[int]:
        page = asyncio.run(History(WithVenueCandles(store)).page(BTC, rollup(target)))
        known = Coverage(FIRST_US + 100 * MINUTE_US, [])
        return [bar_of(each, known).flags for each in page.rolled]

    assert flags("1m") == [CLOSED | VENUE] * 6 + [CLOSED | COMPLETE, CLOSED | VENUE, CLOSED | COMPLETE]
    assert flags("5m") == [CLOSED | VENUE] * 2, "of a window of both it cannot be said whether a trade is missing"
    page = asyncio.run(History(WithVenueCandles(store)).page(BTC, rollup("1m"), FIRST_US + 9 * MINUTE_US, limit=3))
    assert [(each.candle.open_time - FIRST_US) // MINUTE_US for each in page.rolled] == [5, 6, 7]
    assert page.rolled[1].candle == part(6)
    lacking = Coverage(0, [FeedGap(BTC, FIRST_US, None, "lost", 0, "x", 1)])
    assert bar_of(page.rolled[0], lacking).flags == CLOSED | VENUE, "a gap of the feed says nothing of it"
