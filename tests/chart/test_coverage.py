"""Which bars are complete: the rule of the contract, and what changes when more is known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.feed import FeedGap, GapState, is_complete, overlaps
from ashi_chart.candles.bars import CLOSED, COMPLETE, CORRECTED, FLAT, INCOMPLETE, bar_of
from ashi_chart.candles.coverage import Coverage
from ashi_chart.candles.rollup import Rolled
from samples.candles import BTC, FIRST_US, a_candle

STATES: list[GapState] = ["open", "repaired", "lost"]
moments = st.integers(0, 8)


@st.composite
def a_gap(draw: st.DrawFn) -> FeedGap:
    start = draw(moments)
    end = draw(st.one_of(st.none(), st.integers(start, 9)))
    state: GapState = draw(st.sampled_from(STATES))
    return FeedGap(BTC, start, end, state, 0, "why", start)


gaps = st.lists(a_gap(), max_size=6)
untils = st.one_of(st.none(), moments)


@given(gaps, untils, moments, st.integers(1, 10))
def test_what_is_said_of_a_time_is_the_contract_s_rule(
    known: list[FeedGap], until: int | None, start: int, length: int
) -> None:
    coverage, end = Coverage(until, known), start + length
    assert coverage.has_all(start, end) == is_complete(start, end, until, known)
    assert coverage.lacks(start, end) == any(gap.state != "repaired" and overlaps(gap, start, end) for gap in known)


@given(gaps, untils, gaps, untils, st.integers(1, 10))
def test_no_bar_changes_that_is_not_named(
    before: list[FeedGap], until_before: int | None, after: list[FeedGap], until_after: int | None, length: int
) -> None:
    old, new = Coverage(until_before, before), Coverage(until_after, after)
    stretches = new.differs(old)
    for start in range(0, 40, length):
        end = start + length
        same = (old.has_all(start, end), old.lacks(start, end)) == (new.has_all(start, end), new.lacks(start, end))
        assert same or any(first < end and last > start for first, last in stretches)
    assert stretches == sorted(stretches)
    assert (before, until_before) != (after, until_after) or not stretches


def test_a_gap_between_two_trades_of_one_microsecond_lacks_something() -> None:
    gap = FeedGap(BTC, FIRST_US, FIRST_US, "open", 0, "why", FIRST_US)
    coverage = Coverage(FIRST_US + 10, [gap])
    assert (coverage.lacks(FIRST_US, FIRST_US + 1), coverage.lacks(FIRST_US - 1, FIRST_US)) == (True, False)


def test_a_bar_has_the_candle_s_amounts_as_they_are_written_and_says_what_is_known() -> None:
    candle = a_candle(version=7, price="0.10", trade_count=3)
    known = Coverage(candle.close_time, [])
    assert bar_of(Rolled(candle, closed=True), known).__class__.__struct_fields__[0] == "open_time"
    bar = bar_of(Rolled(candle, closed=True, corrected=True), known)
    assert (bar.open_time, bar.open, bar.high, bar.low, bar.close) == (FIRST_US, "0.1", "1.1", "0.1", "0.1")
    assert (bar.volume, bar.trade_count, bar.version) == ("1.5", 3, 7)
    assert (bar.quote_volume, bar.taker_buy_volume) == ("0.1", "0.5")
    assert bar.flags == CLOSED | CORRECTED | COMPLETE


def test_what_is_in_progress_or_lacks_its_beginning_is_not_called_complete() -> None:
    candle = a_candle()
    known = Coverage(candle.close_time + 1, [])
    assert bar_of(Rolled(candle, closed=False), known).flags == 0
    assert bar_of(Rolled(candle, closed=True, whole=False), known).flags == CLOSED
    assert bar_of(Rolled(candle, closed=True), Coverage(candle.close_time - 1, [])).flags == CLOSED


def test_a_bar_that_a_gap_overlaps_is_incomplete_while_it_is_in_progress_too() -> None:
    candle = a_candle(trade_count=0)
    gap = FeedGap(BTC, candle.close_time - 1, None, "open", 0, "the venue closed the connection", FIRST_US)
    known = Coverage(candle.close_time, [gap])
    assert bar_of(Rolled(candle, closed=False), known).flags == INCOMPLETE | FLAT
    assert bar_of(Rolled(candle, closed=True), known).flags == INCOMPLETE | FLAT | CLOSED
