"""Opens what past candles come from, by what the command line names: the URL of a store, or recordings."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ashi.contracts.errors import UsageError
from ashi.contracts.timeframe import Timeframe, format_time
from ashi.runtime.spelling import did_you_mean
from ashi_aggregate.core.window_state import WindowRules
from ashi_ingest.recording.sequence import RecordingSequence, check_recordings
from ashi_sinks.joined import WithVenueCandles
from ashi_sinks.registry import open_reader
from ashi_strategies.backtest.recorded import RecordedCandles
from ashi_strategies.backtest.sources import check_series

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence
    from pathlib import Path

    from ashi.runtime.settings import Settings
    from ashi_sinks.protocol import CandleReader
    from ashi_strategies.backtest.sources import CandleSource
    from ashi_strategies.series_name import SeriesName


@asynccontextmanager
async def open_source(
    settings: Settings,
    store: str,
    recordings: Sequence[tuple[str, Path]],
    series: Collection[SeriesName],
    on_note: Callable[[str], None],
    *,
    venue_candles: bool = False,
) -> AsyncIterator[CandleSource]:
    """The candles of `series` out of `recordings` (venue and path of each), or of the store if there are none.

    `venue_candles`: also the venue's own that are stored, where there are none of trades. `on_note` is told what was
    left out. Raises UsageError for a wrong URL, a file that is no recording, or a series
    that there is not; StorageError when there is no store.
    """
    if recordings:
        yield _count_recordings(settings, recordings, series, on_note)
        return
    async with open_reader(store) as reader:
        source = WithVenueCandles(reader) if venue_candles else reader
        await _check_venue(reader, series, on_note, wanted=venue_candles)
        await check_series(source, series)
        yield source


async def _check_venue(
    reader: CandleReader, series: Collection[SeriesName], on_note: Callable[[str], None], *, wanted: bool
) -> None:
    """Note where there are the venue's own candles. Raises UsageError where there are no others and none are wanted."""
    ours = {(span.symbol, span.timeframe) for span in await reader.spans()}
    for span in await reader.venue_spans():
        if (span.symbol, span.timeframe) not in series:
            continue
        where = f"{span.timeframe} of {span.symbol} from {format_time(span.first)} to {format_time(span.last)}"
        if wanted:
            on_note(
                f"the venue's own candles take part, {where}, wherever there are none of trades: what the venue does "
                "not tell is 0 in them"
            )
        elif (span.symbol, span.timeframe) not in ours:
            raise UsageError(
                f"there are only the venue's own candles, {where}, and none of trades: `--venue-candles` takes them"
            )
        else:
            on_note(f"the store also has the venue's own candles, {where}: left out without `--venue-candles`")


def _count_recordings(
    settings: Settings,
    recordings: Sequence[tuple[str, Path]],
    series: Collection[SeriesName],
    on_note: Callable[[str], None],
) -> RecordedCandles:
    check_recordings(recordings)
    source = RecordedCandles(RecordingSequence(recordings).trades(on_note), series, _rules(settings, series), on_note)
    for symbol, timeframe in series:
        if symbol not in source.symbols:
            right = did_you_mean(symbol, source.symbols)
            raise UsageError(f"no trade of {symbol!r} was recorded; there are {', '.join(source.symbols)}{right}")
        if not source.has(symbol, timeframe):
            raise UsageError(f"no {timeframe} candle of {symbol} closed in what was recorded: it is too short")
    return source


def _rules(settings: Settings, series: Collection[SeriesName]) -> WindowRules:
    """The rules of a worker with these settings, that makes these timeframes too. Raises UsageError if none can."""
    wanted = {Timeframe.parse(key.timeframe) for key in series}
    finest = min({*settings.timeframes, *wanted})
    for timeframe in sorted(wanted):
        if timeframe.length_us % finest.length_us:
            raise UsageError(
                f"timeframe {timeframe} is not a multiple of the finest, {finest}, so no worker makes both: "
                "name other timeframes in ASHI_TIMEFRAMES"
            )
    return WindowRules(
        finest=finest,
        lateness_us=settings.allowed_lateness_us,
        horizon_us=settings.correction_horizon_us,
        max_flat=settings.flat_candles,
    )
