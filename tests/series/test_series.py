"""The series of one symbol in one timeframe, against an oracle that keeps everything, and what is taken of it."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.candle import DECIMAL_FIELDS, Candle
from ashi.contracts.errors import ContractError, UsageError
from ashi_series import Closed, Corrected, InProgress, Series, SeriesView
from samples.candles import BTC, FIRST_US, MINUTE_US, a_candle


def series_of(*candles: Candle, limit: int = 500) -> Series:
    series = Series(BTC, "1m", limit)
    for candle in candles:
        series.apply(candle)
    return series


def windows(view: SeriesView) -> list[int]:
    return [(candle.open_time - FIRST_US) // MINUTE_US for candle in view]


arrivals = st.lists(st.tuples(st.integers(0, 14), st.integers(1, 4)), max_size=60)


@given(arrivals, st.integers(1, 6), st.data())
def test_a_series_holds_the_greatest_version_of_the_newest_windows_however_they_come(
    arriving: list[tuple[int, int]], limit: int, data: st.DataObject
) -> None:
    series = Series(BTC, "1m", limit)
    come: dict[int, int] = {}
    taken = []
    for window, version in arriving:
        candle = a_candle(window, version)
        kept = sorted(come)[-limit:]
        known = come.get(window) if window in kept else None
        event = series.apply(candle)
        if not kept or window > kept[-1]:
            assert event == Closed(candle)
        elif known is None and len(kept) == limit and window < kept[0]:
            assert event is None
        elif known is None or version > known:
            assert event == Corrected(candle, None if known is None else a_candle(window, known))
        else:
            assert event is None
        if event is not None:
            come[window] = version
        expected = [a_candle(window, come[window]) for window in sorted(come)[-limit:]]
        assert list(series) == expected
        if data.draw(st.booleans()):  # columns are filled at some times only
            start = data.draw(st.integers(0, len(series)))
            view = series[start:]
            taken.append((view, view.closes(), view.column("open_time"), expected[start:]))
    for view, closes, open_times, expected in taken:
        assert list(view) == expected
        assert closes.tolist() == view.closes().tolist() == [float(candle.close) for candle in expected]
        assert open_times.tolist() == view.column("open_time").tolist() == [candle.open_time for candle in expected]


@given(arrivals)
def test_the_order_of_arrival_makes_no_difference_to_what_is_held(arriving: list[tuple[int, int]]) -> None:
    candles = [a_candle(window, version) for window, version in arriving]
    assert list(series_of(*candles, limit=5)) == list(series_of(*sorted(candles, key=lambda c: -c.version), limit=5))


def test_what_a_view_is_asked_for_is_what_a_list_would_give() -> None:
    candles = [a_candle(window) for window in range(7)]
    series = series_of(*candles)
    assert [series[place] for place in range(-7, 7)] == [candles[place] for place in range(-7, 7)]
    for cut in (slice(2), slice(-3, None), slice(1, -1), slice(5, 2), slice(None), slice(90, 99)):
        assert list(series[cut]) == candles[cut]
    nested = series[1:6][1:]
    assert list(nested) == candles[2:6]
    assert (nested[-1], nested[0], nested.last, len(nested)) == (candles[5], candles[2], candles[5], 4)
    assert nested.closes().shape == (4,)
    assert list(reversed(nested)) == candles[2:6][::-1]
    assert (candles[3] in nested, candles[1] in nested) == (True, False)
    for place in (7, -8):
        with pytest.raises(IndexError, match="has 7 candles and none at"):
            series[place]
    with pytest.raises(IndexError):
        nested[4]
    with pytest.raises(UsageError, match="step 2"):
        series[::2]


def test_a_view_until_a_time_has_nothing_that_closed_later() -> None:
    series = series_of(*(a_candle(window) for window in (0, 1, 2, 4, 5)))
    closed = FIRST_US + 3 * MINUTE_US  # window 2 closes then
    assert windows(series.until(closed)) == [0, 1, 2]
    assert windows(series.until(closed - 1)) == [0, 1]
    assert windows(series.until(closed + MINUTE_US)) == [0, 1, 2]
    assert windows(series.until(closed, 2)) == [1, 2]
    assert windows(series.until(closed, 0)) == []
    assert windows(series.until(FIRST_US)) == []
    assert windows(series[2:].until(closed, 9)) == [2]
    assert windows(series.until(closed)[1:].until(closed + 9 * MINUTE_US)) == [1, 2]
    assert series.at(FIRST_US + MINUTE_US) == a_candle(1)
    assert series.at(FIRST_US + 3 * MINUTE_US) is None
    assert series.until(closed).at(FIRST_US + 4 * MINUTE_US) is None


def test_a_view_stays_as_it_was_when_a_candle_in_it_is_corrected() -> None:
    series = series_of(a_candle(0, 1), a_candle(1, 2), a_candle(2, 3))
    view, closes = series.until(FIRST_US + 3 * MINUTE_US), series.closes()
    assert series.apply(a_candle(1, 9)) == Corrected(a_candle(1, 9), a_candle(1, 2))
    assert [candle.version for candle in view] == [1, 2, 3]
    assert (closes.tolist(), view.closes().tolist()) == ([1, 2, 3], [1, 2, 3])
    assert series.closes().tolist() == [1, 9, 3]


def test_an_array_that_was_handed_out_cannot_be_written_to() -> None:
    series = series_of(a_candle(0))
    with pytest.raises(ValueError, match="read-only"):
        series.closes()[0] = 5
    assert series.closes().tolist() == [1]


def test_open_windows_go_on_until_they_or_later_ones_close() -> None:
    series = series_of(a_candle(0, 5))
    assert (series.in_progress, series.open_candles()) == (None, [])
    assert series.update(a_candle(0, 9)) is None, "that window has closed"
    assert series.update(a_candle(2, 7)) == InProgress(a_candle(2, 7))
    assert series.update(a_candle(1, 6)) == InProgress(a_candle(1, 6)), "it waits for late trades"
    assert series.update(a_candle(2, 7)) is None
    assert series.update(a_candle(2, 6)) is None
    assert series.in_progress == a_candle(2, 7)
    assert series.open_candles() == [a_candle(1, 6), a_candle(2, 7)]
    series.apply(a_candle(0, 10))
    assert series.open_candles() == [a_candle(1, 6), a_candle(2, 7)], "a correction closes nothing"
    series.apply(a_candle(1, 8))
    assert series.open_candles() == [a_candle(2, 7)]
    series.apply(a_candle(3, 9))
    assert (series.in_progress, series.open_candles()) == (None, [])


def test_open_windows_that_never_close_are_bounded() -> None:
    series = series_of(limit=3)
    for window in range(9):
        series.update(a_candle(window))
    assert [candle.open_time for candle in series.open_candles()] == [
        a_candle(window).open_time for window in (6, 7, 8)
    ]


@pytest.mark.parametrize("candle", [a_candle(symbol="gmo:BTC"), a_candle(timeframe="5m")])
def test_a_candle_of_another_series_is_refused(candle: Candle) -> None:
    series = series_of()
    for take in (series.apply, series.update):
        with pytest.raises(ContractError, match=r"is not of the series bitflyer:BTC_JPY 1m"):
            take(candle)


def test_a_series_that_could_hold_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Series(BTC, "1m", 0)


def test_columns_have_the_fields_in_their_types() -> None:
    exact = "8763519.123456789"
    series = series_of(a_candle(0, 1), a_candle(1, 2**40 + 7, price=exact, volume=Decimal("0.00000001")))
    columns = series.to_numpy()
    assert list(columns) == ["open_time", "close_time", *DECIMAL_FIELDS, "trade_count", "version"]
    assert {name: array.dtype for name, array in columns.items()} == {
        name: np.dtype(np.float64 if name in DECIMAL_FIELDS else np.int64) for name in columns
    }
    assert columns["open_time"].tolist() == [FIRST_US, FIRST_US + MINUTE_US]
    assert columns["version"].tolist() == [1, 2**40 + 7]
    assert columns["volume"].tolist() == series.volumes().tolist() == [1.5, 1e-8]
    assert series.opens().tolist() == [1.0, float(exact)]
    assert series.highs().tolist() == [2.0, float(Decimal(exact) + 1)]
    assert series.lows().tolist() == columns["low"].tolist() == [1.0, float(exact)]
    with pytest.raises(
        UsageError, match="'symbol' is not a column of a series: there are open_time, close_time, open,"
    ):
        series.column("symbol")
    assert series_of().closes().shape == (0,)


def test_tables_have_the_columns_and_times_in_utc() -> None:
    series = series_of(a_candle(0, 1), a_candle(1, 2))
    pandas, polars = series.to_pandas(), series[1:].to_polars()
    times = [datetime(2022, 1, 1, 0, minute, tzinfo=UTC) for minute in (0, 1, 2)]
    assert pandas.index.name == "open_time"
    assert list(pandas.index.to_pydatetime()) == times[:2]
    assert list(pandas["close_time"].dt.to_pydatetime()) == times[1:]
    assert list(pandas.columns) == list(series.to_numpy())[1:]
    assert pandas["close"].tolist() == [1.0, 2.0]
    assert polars.columns == list(series.to_numpy())
    assert polars.select("open_time", "close", "trade_count", "version").rows() == [(times[1], 2.0, 3, 2)]


@pytest.mark.parametrize(
    ("library", "method", "told"),
    [
        ("numpy", "closes", "pip install 'ashi-candles[series]'"),
        ("pandas", "to_pandas", "pip install pandas"),
        ("polars", "to_polars", "pip install polars"),
    ],
)
def test_a_library_that_is_not_installed_is_named(
    library: str, method: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = series_of(a_candle(0))
    monkeypatch.setitem(sys.modules, library, None)  # type: ignore[arg-type]  # as if it were not there
    with pytest.raises(UsageError, match=re.escape(told)):
        getattr(series, method)()
