"""Whatever falls where when a page looks at a series: it ends with each window's greatest version, once."""

from __future__ import annotations

import asyncio

import msgspec
from chart_samples import PageInMemory, a_log, decoded, truth_of
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.feed import FeedGap
from ashi.contracts.timeframe import Timeframe
from ashi.runtime.settings import Settings
from ashi_chart.candles.bars import CLOSED, COMPLETE, INCOMPLETE
from ashi_chart.candles.coverage import Coverage
from ashi_chart.candles.rollup import offered
from ashi_chart.pages.outbox import MOST_BARS_WAITING, MOST_SAID_WAITING, Outbox
from ashi_chart.series import active
from ashi_chart.series.active import ActiveSeries, Key
from ashi_chart.series.series_set import SeriesSet
from ashi_chart.series.store import ChartStore
from samples.candles import BTC, FIRST_US, MINUTE_US, a_candle

MINUTES = [Timeframe.parse("1m")]
ROLLUPS = offered(MINUTES)
NOTHING = Coverage()


class PageOfSeries(PageInMemory):
    """Takes what there is whenever it is told to."""

    def __init__(self, series: ActiveSeries) -> None:
        super().__init__()
        self.series = series
        series.watchers.add(self)

    def take(self) -> None:
        if self.out.wants_snapshot and self.series.is_loaded:
            self.out.begin_snapshot()
            found = self.series.newest(self.series.held[0])
            assert found is not None
            self.replace(found[0])
        elif not self.out.wants_snapshot:
            self.take_bars()


@given(data=st.data(), name=st.sampled_from(["1m", "5m"]))
def test_nothing_is_missing_and_nothing_is_twice_wherever_store_topic_and_stream_meet(
    data: st.DataObject, name: str
) -> None:
    steps = st.tuples(st.integers(0, 4), st.booleans())
    log = a_log(data.draw(st.lists(steps, min_size=1, max_size=30)))
    places = st.integers(0, len(log))
    stored = data.draw(places, "the store has what stands before")
    read_from = data.draw(st.integers(0, stored), "the topic is read from")
    begin = data.draw(places, "the stream is handed on from")
    read_to = data.draw(st.integers(begin, len(log)), "the topic is read to")
    loaded = data.draw(st.integers(begin, len(log)), "it is loaded when the stream has come to")
    again = data.draw(st.none() | st.integers(loaded, len(log)), "and again at")
    read_again_to = data.draw(st.integers(max(loaded, read_to), len(log)), "when the topic is read to")
    takes = data.draw(st.sets(places), "the page takes something at")

    rollup = ROLLUPS[name]
    series = ActiveSeries(Key(BTC, name), rollup, NOTHING)
    page = PageOfSeries(series)
    for place in range(begin, len(log) + 1):
        if place == loaded:
            series.load([*log[:stored], *log[read_from:read_to]], 0)
        if place == again:
            series.load([*log[:stored], *log[read_from:read_again_to]], 0)
        if place in takes:
            page.take()
        if place < len(log):
            series.take(log[place], is_closed=True)
            if data.draw(st.booleans(), "told at once"):
                series.flush()
    series.flush()
    page.take()
    page.take()
    shown = {time: (bar.volume, bar.trade_count) for time, bar in page.bars.items()}
    assert shown == truth_of(rollup, log)


def loaded(count: int, since: int = 0, coverage: Coverage = NOTHING) -> ActiveSeries:
    series = ActiveSeries(Key(BTC, "1m"), ROLLUPS["1m"], coverage)
    series.load([a_candle(window, 1) for window in range(count)], since)
    return series


def flags(series: ActiveSeries) -> list[int]:
    found = series.newest(series.held[0])
    assert found is not None
    return [decoded(raw).flags for raw in found[0]]


def test_what_becomes_known_of_a_time_changes_the_bars_of_that_time_and_no_others() -> None:
    gap = FeedGap(BTC, FIRST_US + MINUTE_US + 5, FIRST_US + MINUTE_US + 9, "open", 0, "silent", FIRST_US)
    series = loaded(4)
    page = PageOfSeries(series)
    page.take()
    series.cover(Coverage(FIRST_US + 3 * MINUTE_US, [gap]))
    assert flags(series) == [CLOSED | COMPLETE, CLOSED | INCOMPLETE, CLOSED | COMPLETE, CLOSED]
    assert len(page.out.take_bars()) == 3
    series.cover(Coverage(FIRST_US + 3 * MINUTE_US, [msgspec.structs.replace(gap, state="repaired")]))
    assert flags(series) == [CLOSED | COMPLETE] * 3 + [CLOSED]
    assert [decoded(raw).open_time for raw in page.out.take_bars()] == [FIRST_US + MINUTE_US]
    series.cover(Coverage(FIRST_US + 3 * MINUTE_US))
    assert page.out.take_bars() == []
    series.take(a_candle(4, 2), is_closed=False)
    series.flush()
    assert flags(series)[-1] == 0


def test_more_bars_than_are_held_are_the_stores_business() -> None:
    series = loaded(50, since=FIRST_US)
    assert series.newest(51) is None
    found = series.newest(50)
    assert found is not None
    assert (len(found[0]), found[1]) == (50, True)
    assert loaded(50).newest(51) == (found[0], False)
    assert loaded(50).newest(10) == (found[0][-10:], True)


def test_a_correction_of_what_is_not_held_is_told_and_not_held() -> None:
    length = active.PARTS + 10
    series = loaded(length, since=FIRST_US)
    for window in range(length, length + active.MOST_HELD):
        series.take(a_candle(window, 1), is_closed=True)
        series.flush()
    assert series.held[0] == active.MOST_HELD
    page = PageOfSeries(series)
    page.take()
    series.take(a_candle(3, 7), is_closed=True)
    assert series.reread == (FIRST_US + 3 * MINUTE_US,)
    series.rebuild(FIRST_US + 3 * MINUTE_US, [a_candle(3, 1)], is_whole=True)
    series.flush()
    [raw] = page.out.take_bars()
    assert (decoded(raw).open_time, decoded(raw).version) == (FIRST_US + 3 * MINUTE_US, 7)
    assert (series.held[0], series.old_changes) == (active.MOST_HELD, 1)


def test_a_page_that_takes_nothing_has_no_more_waiting_than_is_allowed() -> None:
    out = Outbox()
    for version in range(10):
        out.put_bars([(1, b"%d" % version)], 0.0)
    assert (out.conflated, out.take_bars()) == (9, [b"9"])
    out.put_bars([(each, b"") for each in range(MOST_BARS_WAITING)], 0.0)
    assert not out.wants_snapshot
    out.put_bars([(-1, b"")], 0.0)
    assert (out.wants_snapshot, out.lagged, out.take_bars()) == (True, 1, [])
    gap = FeedGap(BTC, FIRST_US, None, "open", 0, "silent", FIRST_US)
    for each in range(MOST_SAID_WAITING + 1):
        out.put_gap(msgspec.structs.replace(gap, from_time=FIRST_US + each))
    assert (out.lagged, out.take_gaps()) == (2, [])
    out.put_bars([(2, b"old")], 0.0)
    out.begin_snapshot()
    out.put_bars([(2, b"new")], 0.0)
    assert (out.wants_snapshot, out.take_bars()) == (False, [b"new"])


def test_a_series_that_is_loaded_again_or_not_true_any_more_tells_its_pages() -> None:
    async def main() -> None:
        series = loaded(2)
        page = PageOfSeries(series)
        page.take()
        series.unload("topic candles was made anew")
        assert page.out.take_error() == ("series", "topic candles was made anew")
        assert not series.is_loaded
        series.take(a_candle(5, 9), is_closed=True)
        series.load([a_candle(0, 3)], 0)
        page.take()
        assert [(bar.open_time, bar.version) for bar in page.bars.values()] == [
            (FIRST_US, 3),
            (FIRST_US + 5 * MINUTE_US, 9),
        ]

    asyncio.run(main())


def test_what_was_in_progress_before_anybody_looked_is_shown() -> None:
    """Where trades are rare, the next update may be an hour away."""

    async def main() -> None:
        held = SeriesSet(
            Settings.from_environment({}), ChartStore("sqlite:////none.db"), lambda _: NOTHING, lambda _: None
        )
        for candle in (a_candle(2, 4), a_candle(3, 5), a_candle(3, 6)):
            held.take(candle, is_closed=False)
        one, five = (held._make(Key(BTC, name), offered(MINUTES)[name]) for name in ("1m", "5m"))
        for series in (one, five):
            series.load([a_candle(window, window + 1) for window in range(3)], 0)
        assert flags(one) == [CLOSED, CLOSED, CLOSED, 0]
        assert newest_version(one) == newest_version(five) == 6
        late = held._make(Key(BTC, "15m"), offered(MINUTES)["15m"])
        held.take(a_candle(3, 7), is_closed=True)
        late.load([a_candle(window, window + 1) for window in range(3)], 0)
        await asyncio.sleep(0)  # told in a moment
        assert newest_version(late) == newest_version(one) == 7
        assert flags(one) == [CLOSED] * 4

    asyncio.run(main())


def newest_version(series: ActiveSeries) -> int:
    found = series.newest(1)
    assert found is not None
    return decoded(found[0][0]).version


def test_what_has_come_since_the_topic_was_read_is_still_there_when_a_series_is_loaded_again() -> None:
    series = loaded(2)
    series.take(a_candle(2, 5), is_closed=True)
    series.take(a_candle(3, 6), is_closed=False)
    series.flush()
    series.load([a_candle(0, 1), a_candle(1, 4)], 0)
    found = series.newest(10)
    assert found is not None
    assert [(bar.version, bar.flags & CLOSED) for bar in map(decoded, found[0])] == [(1, 1), (4, 1), (5, 1), (6, 0)]
