"""Until when everything is known, and from when on a market is suspected: the rules by themselves."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts import Trade
from ashi.contracts.feed import FeedStatus
from ashi_ingest.feed.evidence.completeness import (
    REST_LAG_ALLOWANCE_US,
    Completeness,
    VenueClock,
    WorstLag,
    lag_allowance_us,
)
from ashi_ingest.feed.evidence.rhythm import LEAST_S, MEDIANS, deadline_s
from ashi_ingest.feed.symbol.checked import CheckedSymbol
from ashi_ingest.feed.symbol.missing import UnreceivedTrades, find_missing
from ashi_ingest.feed.symbol.sequencer import TradeSequencer

T = 1_700_000_000_000_000
S = 1_000_000


def trades_at(*seconds: float) -> list[Trade]:
    times = [T + round(each * S) for each in seconds]
    return [Trade("toy:A", str(n), Decimal(1), Decimal(1), "buy", us, us, n) for n, us in enumerate(times)]


def test_nothing_is_known_before_anything_was_checked():
    assert Completeness(0).until(None) is None
    assert Completeness(0).until(T) is None
    assert Completeness(0, T).until(None) == T


@given(
    gaps_us=st.lists(st.integers(0, 3 * S), min_size=1, max_size=30),
    disorder=st.lists(st.integers(0, 2 * S), min_size=30, max_size=30),
    known=st.integers(1, 30),
)
def test_no_trade_of_a_greater_id_is_older_than_what_ids_without_a_hole_prove(gaps_us, disorder, known):
    """The oracle is the whole history: ids in the order of happening, times that may be earlier by the disorder."""
    happened = T
    times = []
    for gap_us, early_us in zip(gaps_us, disorder, strict=False):
        happened += gap_us
        times.append(happened - early_us)
    completeness = Completeness(2 * S)
    for time in times[:known]:
        completeness.on_unbroken(time)
    until = completeness.until(None)
    assert until is not None
    assert all(time >= until for time in times[known:])


def test_what_rest_has_shown_and_what_it_must_have_shown_are_known():
    completeness = Completeness(5 * S)
    completeness.on_shown(T)
    assert completeness.until(None) == T
    completeness.on_nothing_unknown(T + 70 * S, 60 * S)
    assert completeness.until(None) == T + 10 * S


def test_it_never_goes_back():
    completeness = Completeness(5 * S, T)
    completeness.on_unbroken(T)
    completeness.on_shown(T - 1)
    completeness.on_nothing_unknown(T + 59 * S, 60 * S)
    assert completeness.until(None) == T


def test_nothing_is_known_beyond_the_beginning_of_a_gap_that_is_open():
    completeness = Completeness(0, T)
    assert completeness.until(T - 1) == T - 1
    assert completeness.until(T + 1) == T


def test_rest_is_allowed_a_minute_or_three_times_what_it_lagged_lately():
    assert lag_allowance_us(0) == REST_LAG_ALLOWANCE_US == 60 * S
    assert lag_allowance_us(19 * S) == 60 * S
    assert lag_allowance_us(30 * S) == 90 * S


def test_the_worst_lag_is_forgotten_after_one_to_two_periods():
    lag = WorstLag(period_us=100 * S)
    lag.on_lag(30 * S, T)
    lag.on_lag(2 * S, T + 90 * S)
    assert lag.worst_us == 30 * S
    lag.on_lag(3 * S, T + 110 * S)
    assert lag.worst_us == 30 * S
    lag.on_lag(1 * S, T + 220 * S)
    assert lag.worst_us == 3 * S


def test_the_venues_clock_is_behind_ours_by_at_most_the_least_time_that_a_trade_took():
    clock = VenueClock(period_us=100 * S)
    assert clock.venue_us(T) == T, "nothing has come, so nothing is known of it"
    clock.on_trade(T, T + 95 * S)
    clock.on_trade(T + S, T + 91 * S)
    clock.on_trade(T + 2 * S, T + 99 * S)
    assert clock.venue_us(T + 100 * S) == T + 10 * S
    clock.on_trade(T + 300 * S, T + 300 * S + 20)
    clock.on_trade(T + 500 * S, T + 500 * S + 20)
    assert clock.venue_us(T + 500 * S) == T + 500 * S - 20, "ours was set right"


def test_a_venue_whose_clock_is_ahead_of_ours_is_taken_to_have_ours():
    clock = VenueClock()
    clock.on_trade(T + 80 * S, T)
    assert clock.venue_us(T) == T


def test_rest_shows_less_by_as_much_as_the_clock_was_ahead_of_late():
    clock = VenueClock(period_us=100 * S)
    assert clock.shown_until(None, T) is None
    assert clock.shown_until(T + 5 * S, T) == T, "nothing of the time after it was asked for"
    clock.on_fetched(trades_at(0, 1))
    assert clock.ahead_us == 0
    clock.on_trade(T + 50 * S, T)
    assert (clock.ahead_us, clock.shown_until(T + 60 * S, T + 70 * S)) == (50 * S, T + 10 * S)
    clock.on_trade(T + 90 * S, T + 101 * S)
    assert clock.ahead_us == 50 * S, "what was stamped while it was ahead may be listed yet"
    clock.on_trade(T + 190 * S, T + 202 * S)
    assert clock.ahead_us == 0
    clock.on_fetched([msgspec.structs.replace(each, received_at=each.traded_at - 7 * S) for each in trades_at(300)])
    assert clock.ahead_us == 7 * S, "REST had listed it before its time"


@pytest.mark.parametrize(
    ("seconds", "expected_s"),
    [
        ([], LEAST_S),
        ([1], LEAST_S),
        ([0, 1, 2, 3], LEAST_S),
        ([0, 30, 60, 90], MEDIANS * 30),
        ([0, 30, 30.001, 60, 90, 90.002, 120, 150, 180], MEDIANS * 30),  # two bursts of two
        ([90, 0, 60, 30], MEDIANS * 30),  # times are not in the order of ids
        ([0, 40_000, 40_030, 40_060, 40_090], MEDIANS * 30),  # a night before
    ],
)
def test_a_market_is_suspected_after_some_of_its_median_intervals_and_not_sooner_than_the_least(seconds, expected_s):
    assert deadline_s(trades_at(*seconds)) == pytest.approx(expected_s, rel=1e-3)


def test_only_the_last_intervals_are_the_rhythm():
    quick_then_slow = [*range(300), *(300 + 60 * number for number in range(150))]
    assert deadline_s(trades_at(*quick_then_slow)) == MEDIANS * 60


class Reporter:
    """Takes note of what is said of a symbol."""

    def __init__(self) -> None:
        self.until: list[int] = []

    def open_since(self, symbol: str) -> int | None:
        return None

    def end_gap(self, *said: Any, **more: Any) -> None:
        """What was before the first id is not the matter here."""

    def set_complete_until(self, symbol: str, until_us: int) -> None:
        self.until.append(until_us)


def test_while_a_repair_goes_on_its_ids_prove_nothing():
    """It may leave out what REST does not list, and says so in the end."""
    sequencer = TradeSequencer("toy:A", contiguous=True, resume_point=trades_at(0, 1))
    reporter: Any = Reporter()
    checked = CheckedSymbol(sequencer, reporter, disorder_us=0, now_s=0.0)
    sequencer.begin_repair()
    sequencer.on_repaired(trades_at(0, 1, 2, 3, 4)[3:])
    checked.look(1.0)
    assert reporter.until == []
    assert not checked.is_comparable
    sequencer.end_repair(1.0)
    checked.look(2.0)
    assert reporter.until == [T + 4 * S]
    assert checked.is_comparable


def test_while_a_hole_is_waited_for_nothing_is_compared_and_no_more_is_known_than_before_it():
    sequencer = TradeSequencer("toy:A", contiguous=True, resume_point=trades_at(0, 1))
    reporter: Any = Reporter()
    checked = CheckedSymbol(sequencer, reporter, disorder_us=0, now_s=0.0)
    sequencer.begin_repair()
    sequencer.end_repair(0.0)
    sequencer.on_live(trades_at(0, 1, 2, 3, 4)[3:], 1.0)
    checked.look(1.0)
    assert reporter.until == [T + S]
    assert not checked.is_comparable


def test_a_trade_that_rest_brought_and_that_was_stamped_ahead_proves_nothing_of_the_time_until_then():
    sequencer = TradeSequencer("toy:A", contiguous=True, resume_point=trades_at(0, 1))
    reporter: Any = Reporter()
    checked = CheckedSymbol(sequencer, reporter, disorder_us=0, now_s=0.0)
    sequencer.begin_repair()
    sequencer.on_repaired([msgspec.structs.replace(trades_at(0, 1, 51)[2], received_at=T + 60 * S)])
    sequencer.end_repair(1.0)
    checked.look(1.0, ahead_us=50 * S)
    assert reporter.until == [T + S]


def not_contiguous(*published: Trade) -> tuple[CheckedSymbol, TradeSequencer]:
    sequencer = TradeSequencer("toy:A", contiguous=False, ordered_ids=False, resume_point=published)
    reporter: Any = Reporter()
    return CheckedSymbol(sequencer, reporter, disorder_us=0, now_s=0.0), sequencer


def test_what_was_published_after_the_first_that_was_not_compared_is_compared_whatever_its_time():
    """The clock was set back after trades that nobody had compared when the worker ended."""
    published = trades_at(0, 1, 2, 100, 10, 11)
    checked, _ = not_contiguous(*published)
    checked.begin(FeedStatus("toy:A", "connected", T, None, "5", T, T, T + 50 * S), published, T)
    assert checked.since == published[:3]


def test_without_ids_rest_lags_by_what_came_after_the_last_that_it_lists():
    published = [msgspec.structs.replace(each, received_at=T + n * S) for n, each in enumerate(trades_at(0, 51, 2, 3))]
    checked, _ = not_contiguous(*published)
    assert checked.lag_us(published[:2], T + 10 * S) == 8 * S, "the second was stamped ahead"
    assert checked.lag_us(published, T + 10 * S) == 0
    after_newer_ones, _ = not_contiguous(*trades_at(0, 1, 2, 3), trades_at(*range(6), 1.5)[-1])
    assert after_newer_ones.lag_us(trades_at(0, 1, 2, 3)[2:], T + 500 * S) == 0, "what was fetched late is no lag"


def test_a_trade_that_was_stamped_ahead_did_not_come_after_what_is_missing():
    """Else a market that has gone mute would seem to have come back, and its gap to have ended."""
    came = [msgspec.structs.replace(each, received_at=T + n * S) for n, each in enumerate(trades_at(0, 1, 52, 3))]
    checked, _ = not_contiguous(*came)
    checked.begin(None, came, T)
    missing = trades_at(*range(4), 4, 5)[4:]
    fetched = [msgspec.structs.replace(each, received_at=T + 9 * S) for each in [*came, *missing]]
    assert find_missing(fetched, missing, checked) == UnreceivedTrades(missing, T + 3 * S, None)
    assert find_missing([*fetched, *trades_at(*range(6), 7)[-1:]], missing, checked).until_us == T + 7 * S


def test_what_follows_the_first_that_rest_still_goes_back_to_is_compared_again():
    """A row that cannot be read may be among it, outside of the gap that is told."""
    published = trades_at(0, 1)
    checked, sequencer = not_contiguous(*published)
    checked.begin(None, published, T)
    listed = trades_at(*range(5, 40))
    sequencer.learn_late(listed)
    checked.on_out_of_reach(listed, "it does not go back so far")
    assert checked.since == listed[:1]
