"""Until when everything is known, and from when on a market is suspected: the rules by themselves."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts import Trade
from ashi_ingest.feed.checked import CheckedSymbol
from ashi_ingest.feed.completeness import (
    REST_LAG_ALLOWANCE_US,
    Completeness,
    VenueClock,
    WorstLag,
    lag_allowance_us,
)
from ashi_ingest.feed.rhythm import LEAST_S, MEDIANS, deadline_s
from ashi_ingest.feed.sequencer import TradeSequencer

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
    checked.look(1.0, 0)
    assert reporter.until == []
    assert not checked.is_comparable
    sequencer.end_repair(1.0)
    checked.look(2.0, 0)
    assert reporter.until == [T + 4 * S]
    assert checked.is_comparable


def test_while_a_hole_is_waited_for_nothing_is_compared_and_no_more_is_known_than_before_it():
    sequencer = TradeSequencer("toy:A", contiguous=True, resume_point=trades_at(0, 1))
    reporter: Any = Reporter()
    checked = CheckedSymbol(sequencer, reporter, disorder_us=0, now_s=0.0)
    sequencer.begin_repair()
    sequencer.end_repair(0.0)
    sequencer.on_live(trades_at(0, 1, 2, 3, 4)[3:], 1.0)
    checked.look(1.0, 0)
    assert reporter.until == [T + S]
    assert not checked.is_comparable
