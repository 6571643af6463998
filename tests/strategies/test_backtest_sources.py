"""Where a backtest's candles come from, and in which steps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import patch

import pytest
from backtest_samples import MINUTE, OTHER, START, SYMBOL, WatchedCandles, make_candle, series_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ashi.contracts import Candle, Timeframe
from ashi.contracts.errors import UsageError
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.runtime.settings import Settings
from ashi_aggregate.core.window_state import WindowRules
from ashi_ingest.recording.bundled import BUNDLED
from ashi_sinks.registry import STORES, make_sink, migrate_store
from ashi_strategies.backtest import recorded
from ashi_strategies.backtest.in_memory import CandlesInMemory
from ashi_strategies.backtest.opening import open_source
from ashi_strategies.backtest.recorded import RecordedCandles
from ashi_strategies.backtest.sources import (
    CandleSource,
    CandleStep,
    check_series,
    completeness,
    read_startup,
    read_steps,
)
from ashi_strategies.series_name import SeriesName
from oracle import candles_of, closed, stored, timely, unique
from samples.hypothesis_strategies import trades

HOUR = 60 * MINUTE
RULES = WindowRules(finest=Timeframe.parse("1m"))


def steps(
    source: CandleSource, series: list[SeriesName], after: int | None = None, until: int | None = None
) -> list[CandleStep]:
    async def read() -> list[CandleStep]:
        return [step async for step in read_steps(source, series, after, until)]

    return asyncio.run(read())


def test_candles_of_one_close_time_are_one_step_in_the_order_of_timeframe_and_symbol():
    hour = Timeframe.parse("1h").open_time(START) + HOUR
    candles = [
        *series_of([1, 2, 3], start=hour - 3 * MINUTE),
        *series_of([4, 5], start=hour - 2 * MINUTE, symbol=OTHER),
        make_candle(hour - HOUR, 1, 3, timeframe="1h"),
    ]
    series = [SeriesName(SYMBOL, "1h"), SeriesName(OTHER, "1m"), SeriesName(SYMBOL, "1m")]
    found = steps(CandlesInMemory(candles), series)
    assert [(step.close_time, [(c.timeframe, c.symbol) for c in step.candles]) for step in found] == [
        (hour - 2 * MINUTE, [("1m", SYMBOL)]),
        (hour - MINUTE, [("1m", SYMBOL), ("1m", OTHER)]),
        (hour, [("1m", SYMBOL), ("1m", OTHER), ("1h", SYMBOL)]),
    ]


def test_bounds_are_close_times_so_that_no_candle_to_start_with_closes_after_a_step():
    hour = Timeframe.parse("1h").open_time(START)
    candles = [
        *series_of(range(1, 121), start=hour),
        *series_of([60, 120], start=hour, timeframe="1h"),
    ]
    source = CandlesInMemory(candles)
    series = [SeriesName(SYMBOL, "1m"), SeriesName(SYMBOL, "1h")]
    after = hour + 90 * MINUTE  # in the midst of the second hour
    found = steps(source, series, after, hour + 119 * MINUTE)
    assert [step.close_time for step in found] == list(range(after + MINUTE, hour + 120 * MINUTE, MINUTE))
    startup = asyncio.run(read_startup(source, dict.fromkeys(series, 2), after))
    assert [(step.close_time, [c.timeframe for c in step.candles]) for step in startup] == [
        (hour + HOUR, ["1h"]),
        (after - MINUTE, ["1m"]),
        (after, ["1m"]),
    ]
    [*_, last] = steps(source, series, after, None)
    assert [c.timeframe for c in last.candles] == ["1m", "1h"]


@given(
    st.lists(
        st.tuples(st.sampled_from([SYMBOL, OTHER]), st.sampled_from(["1m", "5m"]), st.integers(0, 20)), max_size=40
    )
)
def test_steps_hold_every_candle_once_and_in_order(drawn):
    lengths = {"1m": MINUTE, "5m": 5 * MINUTE}
    base = Timeframe.parse("5m").open_time(START)
    candles = [make_candle(base + n * lengths[t], 1, 1, symbol=s, timeframe=t) for s, t, n in sorted(set(drawn))]
    series = [SeriesName(s, t) for s in (OTHER, SYMBOL) for t in ("5m", "1m")]
    found = steps(CandlesInMemory(candles), series)
    assert [step.close_time for step in found] == sorted({candle.close_time for candle in candles})
    flat = [candle for step in found for candle in step.candles]
    assert flat == sorted(candles, key=lambda c: (c.close_time, lengths[c.timeframe], c.symbol))


@settings(max_examples=50)
@given(trades(count=60, symbols=[SYMBOL, OTHER]), st.integers(1, 7))
def test_candles_of_recorded_trades_are_those_that_an_oracle_makes_of_them(log, at_once):
    series = [SeriesName(SYMBOL, "1m"), SeriesName(SYMBOL, "5m"), SeriesName(OTHER, "5m")]
    notes: list[str] = []
    with patch.object(recorded, "TRADES_AT_ONCE", at_once):
        source = RecordedCandles(enumerate(log), series, RULES, notes.append)
    counted = unique(timely(log, "1m", RULES.horizon_us))
    expected = closed(candles_of(counted, ["1m", "5m"]), log, RULES.lateness_us)
    found = [candle for step in steps(source, series) for candle in step.candles]
    assert stored(found) == {key: value for key, value in expected.items() if (key[0], key[1]) in series}
    assert len(found) == len(stored(found))
    late = [t for t in log if t.symbol in (SYMBOL, OTHER)]
    assert bool(notes) == (len(timely(late, "1m", RULES.horizon_us)) < len(late))


def opened(store: str, recordings: list[tuple[str, Path]], series: list[SeriesName], **env: str) -> list[Candle]:
    async def read() -> list[Candle]:
        notes: list[str] = []
        settings = Settings.from_environment({"ASHI_TIMEFRAMES": "1m,5m", **env})
        async with open_source(settings, store, recordings, series, notes.append) as source:
            return [candle async for step in read_steps(source, series) for candle in step.candles]

    return asyncio.run(read())


@pytest.mark.parametrize("store", ["sqlite", "lake", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_a_store_and_the_recordings_that_it_was_filled_from_give_the_same_candles(tmp_path, request, store):
    [first, second] = BUNDLED["binance"]
    series = [SeriesName(SYMBOL, "1m"), SeriesName(SYMBOL, "5m")]
    candles = opened("", [("binance", first), ("binance", second)], series)
    assert len(candles) > 5
    url = request.getfixturevalue("postgres").new_schema() if store == "postgres" else f"{store}:///{tmp_path}/candles"
    if STORES[store].migrate is not None:
        migrate_store(url)

    async def fill() -> None:
        sink = make_sink(url)
        await sink.open()
        await sink.write(candles)
        await sink.close()

    asyncio.run(fill())
    assert opened(url, [], series) == candles


@pytest.mark.parametrize(("most", "flat"), [("0", False), ("1440", True)])
def test_candles_of_recordings_are_made_by_the_settings(most, flat):
    recordings = [("binance", path) for path in BUNDLED["binance"]]
    candles = opened("", recordings, [SeriesName(SYMBOL, "1s")], ASHI_FLAT_CANDLES=most)
    assert any(candle.trade_count == 0 for candle in candles) is flat


@pytest.mark.parametrize(
    ("series", "sentence"),
    [
        (
            SeriesName("binance:ETHUSD", "1m"),
            "no trade of 'binance:ETHUSD' was recorded; there are binance:ETHUSDT; did you",
        ),
        (SeriesName(SYMBOL, "1d"), f"no 1d candle of {SYMBOL} closed in what was recorded: it is too short"),
        (SeriesName(SYMBOL, "90s"), "timeframe 90s is not a multiple of the finest, 1m"),
    ],
)
def test_what_no_recording_can_give_is_told(series, sentence):
    with pytest.raises(UsageError, match=sentence):
        opened("", [("binance", BUNDLED["binance"][0])], [series])


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (SeriesName(SYMBOL, "5m"), f"there are no 5m candles of {SYMBOL}; there are 1m"),
        (SeriesName("binance:ETHUSD", "1m"), "there are no candles of 'binance:ETHUSD'; there are"),
    ],
)
def test_what_a_store_has_not_is_told_with_what_it_has(key, sentence):
    source = CandlesInMemory([*series_of([1]), *series_of([1], symbol=OTHER)])
    with pytest.raises(UsageError, match=sentence):
        asyncio.run(check_series(source, [SeriesName(SYMBOL, "1m"), key]))
    asyncio.run(check_series(source, [SeriesName(SYMBOL, "1m"), SeriesName(OTHER, "1m")]))


def test_a_candle_is_complete_as_its_feed_has_said():
    candles = series_of([1, 2, 3, 4])
    gap = FeedGap(SYMBOL, START + MINUTE, START + MINUTE + 1, "lost", 0, "", START)
    repaired = FeedGap(SYMBOL, START, START + 1, "repaired", 1, "", START)
    status = FeedStatus(SYMBOL, "connected", START, None, None, None, START, START + 3 * MINUTE)
    source = WatchedCandles(candles, [gap, repaired], [status])
    tell = asyncio.run(completeness(source, [SYMBOL, OTHER], None, None))
    assert [tell(candle) for candle in candles] == [True, False, True, False]
    assert tell(series_of([1], symbol=OTHER)[0]) is None
