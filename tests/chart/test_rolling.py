"""The newest windows as parts come: whoever applies what changed has what a roll-up of everything gives."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from chart_samples import candles_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ashi.contracts import Candle, Timeframe
from ashi_chart.candles.rolling import RollingSeries
from ashi_chart.candles.rollup import Rolled, Rollup
from ashi_chart.candles.timeframes import ChartTimeframe
from samples.candles import BTC, FIRST_US, MINUTE_US, a_candle

WINDOW_US = 5 * MINUTE_US


def rollup(target: str = "5m") -> Rollup:
    return Rollup(Timeframe.parse("1m"), ChartTimeframe.parse(target))


def a_part(number: int, version: int) -> Candle:
    """A function of its arguments; every fourth version is flat, and versions of one price say the same."""
    price = Decimal(version // 2 + 10)
    if version % 4 == 3:
        return a_candle(number, version, price=str(price), high=price, trade_count=0, volume=Decimal(0))
    return a_candle(number, version, price=str(price), volume=Decimal(version // 2))


def everything(parts: dict[int, Candle], in_progress: dict[int, Candle], how: Rollup) -> dict[int, Rolled]:
    """The plain oracle: all parts sorted and rolled up at once."""
    through = max((part.close_time for part in parts.values()), default=0)
    ahead = {time: part for time, part in in_progress.items() if time not in parts}
    joined = [(in_progress | parts)[time] for time in sorted(parts | ahead)]
    first = min(parts.keys() | in_progress.keys(), default=0)
    return {
        candle.open_time: Rolled(
            candle,
            closed=candle.close_time <= through
            and not any(candle.open_time <= time < candle.close_time for time in ahead),
            whole=first <= candle.open_time,
        )
        for candle in candles_of(how, joined)
    }


events = st.lists(
    st.tuples(st.sampled_from(["apply", "apply", "apply", "update", "ask"]), st.integers(-2, 3), st.integers(1, 40)),
    max_size=60,
)


@settings(max_examples=500)
@given(events=events, target=st.sampled_from(["1m", "5m", "15m"]), held=st.sampled_from([1, 3, 8, 1000]))
def test_whoever_applies_what_changed_has_what_a_roll_up_of_everything_gives(
    events: list[tuple[str, int, int]], target: str, held: int
) -> None:
    how = rollup(target)
    series = RollingSeries(BTC, how, parts=held)
    store: dict[int, Candle] = {}
    in_progress: dict[int, Candle] = {}
    page: dict[int, Rolled] = {}
    newest, was_corrected = 0, set()

    def ask() -> None:
        for window in series.reread:
            inside = [store[time] for time in sorted(store) if how.window_of(time)[0] == window]
            series.rebuild(window, inside)
        changed = series.changed()
        assert [each.candle.open_time for each in changed] == sorted({each.candle.open_time for each in changed})
        for each in changed:
            page[each.candle.open_time] = each

    def apply(part: Candle) -> None:
        before = everything(store, in_progress, how)
        series.apply(part)
        known = store.get(part.open_time)
        if known is None or part.version > known.version:
            store[part.open_time] = part
        in_progress.pop(part.open_time, None)
        start = how.window_of(part.open_time)[0]
        now = everything(store, in_progress, how)[start]
        if start in before and before[start].closed and without_version(before[start]) != without_version(now):
            was_corrected.add(start)

    for kind, step, version in events:
        number = max(newest + step, 0)
        part = a_part(number, version)
        if kind == "ask":
            ask()
        elif kind == "update":
            series.update(part)
            known = in_progress.get(part.open_time)
            through = max((each.close_time for each in store.values()), default=0)
            if part.close_time > through and (known is None or version > known.version):
                in_progress[part.open_time] = part
        else:
            newest = max(newest, number)
            for open_time in sorted(each for each in in_progress if each < part.open_time):
                apply(in_progress[open_time])  # the parts of a series close in order
            apply(part)
    ask()
    expected = everything(store, in_progress, how)
    assert {start: each._replace(corrected=False, whole=True) for start, each in page.items()} == {
        start: each._replace(whole=True) for start, each in expected.items()
    }
    assert was_corrected <= {start for start, each in page.items() if each.corrected}
    for start, each in page.items():
        if start >= series.since:
            assert each.whole == expected[start].whole
            assert each.corrected == (start in was_corrected) or held < 1000
    count = len([start for start in expected if start >= series.since])
    held_now = series.newest(count)
    assert held_now == [page[start] for start in sorted(page) if start >= series.since]
    assert series.between(series.since, 2**62) == held_now


def without_version(rolled: Rolled) -> Candle:
    return msgspec.structs.replace(rolled.candle, version=0)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 40)), max_size=60), st.sampled_from([1, 4, 1000]))
def test_the_tail_and_a_store_that_has_what_was_let_go_are_everything(parts: list[tuple[int, int]], held: int) -> None:
    series = RollingSeries(BTC, rollup(), parts=held)
    everything_known: dict[int, Candle] = {}
    for number, version in parts:
        part = a_part(number, version)
        series.fill(part)
        if version > everything_known.get(part.open_time, a_part(0, 0)).version:
            everything_known[part.open_time] = part
    tail = series.tail()
    stored = {time: part for time, part in everything_known.items() if part.close_time <= tail.let_go_until}
    for part in tail.closed:
        if part.version > stored.get(part.open_time, a_part(0, 0)).version:
            stored[part.open_time] = part
    assert stored == everything_known


def filled(numbers: range, **more: Any) -> RollingSeries:
    series = RollingSeries(BTC, rollup(), **more)
    for number in numbers:
        series.fill(a_part(number, 2))
    return series


def test_what_was_there_before_is_no_news() -> None:
    assert filled(range(12)).changed() == []


def test_a_bar_closes_with_its_last_part_and_not_before() -> None:
    series = filled(range(4))
    series.update(a_part(4, 4))
    [in_progress] = series.changed()
    assert (in_progress.closed, in_progress.candle.version) == (False, 4)
    series.apply(a_part(4, 4))
    [closed] = series.changed()
    assert (closed.closed, closed.corrected, closed.candle) == (True, False, in_progress.candle)


def test_a_bar_whose_last_parts_never_come_closes_with_the_next_one() -> None:
    series = filled(range(3))
    series.apply(a_part(7, 2))
    assert [(each.candle.open_time, each.closed) for each in series.changed()] == [
        (FIRST_US, True),
        (FIRST_US + WINDOW_US, False),
    ]


def test_a_correction_of_a_part_is_one_of_its_bar_though_another_part_is_of_a_greater_version() -> None:
    series = filled(range(5))
    series.apply(a_part(1, 40))
    series.changed()
    series.apply(a_part(0, 30))
    [corrected] = series.changed()
    assert corrected.corrected
    assert (corrected.candle.version, corrected.candle.open) == (40, a_part(0, 30).open)


def test_what_was_corrected_is_told_by_whoever_goes_on() -> None:
    series = filled(range(15))
    series.apply(a_part(1, 40))

    def corrected_after(*, lacked_some: bool) -> list[bool]:
        after = RollingSeries(BTC, rollup())
        for part in (*series.tail().closed, a_part(6, 50), a_part(12, 40), a_part(15, 2)):
            after.fill(part)
        after.go_on_from(series, lacked_some=lacked_some)
        assert after.changed() == []
        return [each.corrected for each in after.newest(4) or ()]

    assert corrected_after(lacked_some=False) == [True, True, True, False]
    assert corrected_after(lacked_some=True) == [True, False, False, False]


def test_a_correction_of_a_bar_in_progress_is_none_that_a_chart_marks() -> None:
    series = filled(range(3))
    series.apply(a_part(1, 40))
    [rolled] = series.changed()
    assert not rolled.corrected


def test_a_part_that_is_still_in_progress_holds_its_bar_open() -> None:
    series = filled(range(4))
    series.update(a_part(4, 2))
    series.apply(a_part(5, 2))
    first, second = series.changed()
    assert (first.closed, second.closed) == (False, False)
    series.apply(a_part(4, 3))
    assert [each.closed for each in series.changed()] == [True]


@pytest.mark.parametrize("number", [5, 6, 9])
def test_a_correction_of_what_is_not_held_is_named_and_its_bar_is_made_of_the_store_and_what_came(number: int) -> None:
    series = filled(range(30), parts=10)
    old = a_part(number, 30)
    series.apply(old)
    assert series.changed() == []
    assert list(series.reread) == [FIRST_US + WINDOW_US]
    series.rebuild(FIRST_US + WINDOW_US, [a_part(each, 2) for each in range(5, 10)])  # the store lags
    assert not series.reread
    [rolled] = series.changed()
    assert rolled.corrected
    assert rolled.candle == rollup().candle_of([old if each == number else a_part(each, 2) for each in range(5, 10)])
    series.apply(old)
    assert (series.changed(), list(series.reread)) == ([], [])  # one that comes again is no news


def test_a_long_window_holds_few_parts_and_goes_on() -> None:
    series = RollingSeries(BTC, rollup("1d"), parts=10)
    for number in range(1000):
        series.apply(a_part(number, 2))
    assert len(series.tail().closed) == 10
    assert series.tail().let_go_until == FIRST_US + 990 * MINUTE_US
    [rolled] = series.changed()
    assert rolled.candle == rollup("1d").candle_of([a_part(number, 2) for number in range(1000)])


def test_a_part_that_came_long_after_later_ones_is_in_the_sum_of_what_was_there_before() -> None:
    parts = [a_part(number, 2) for number in (*range(5), *range(6, 1000))] + [a_part(5, 4)]  # as they were written
    series = RollingSeries(BTC, rollup("1d"), parts=10)
    series.fill_all(parts)
    [rolled] = series.between(0, FIRST_US + 1000 * MINUTE_US)
    assert rolled.candle == rollup("1d").candle_of([*parts[:5], parts[-1], *parts[5:-1]])
    assert len(series.tail().closed) == 10 + 1  # and the one that came late, which a store may lack
    series.apply(a_part(1000, 2))
    [rolled] = series.changed()
    assert rolled.candle == rollup("1d").candle_of([*parts[:5], parts[-1], *parts[5:-1], a_part(1000, 2)])


def test_a_series_with_older_candles_knows_that_it_is_not_all() -> None:
    series = filled(range(10), since=FIRST_US)
    assert series.newest(3) is None
    assert len(series.newest(2) or ()) == 2
    assert len(filled(range(10)).newest(3) or ()) == 2


@pytest.mark.parametrize(("since", "whole"), [(0, False), (FIRST_US, True)])
def test_a_bar_that_the_series_begins_within_is_not_whole(since: int, whole: bool) -> None:
    first, second = filled(range(2, 10), since=since).newest(2) or []
    assert (first.whole, second.whole) == (whole, True)
