"""What past candles come from, a store of any kind or recordings, and how their series become one sequence of steps."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ashi.contracts.feed import is_complete
from ashi.contracts.timeframe import LONGEST_US
from ashi_series.order import step_order
from ashi_sinks.known_series import check_known

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap, FeedStatus
    from ashi_sinks.protocol import SeriesSpan
    from ashi_strategies.series_name import SeriesName


class CandleSource(Protocol):
    """Past candles, each series as often as it is asked for; a part of `ashi_sinks.protocol.CandleReader`."""

    def read(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[Candle]:
        """The candles of one series that open in [`start`, `end`), µs, in order; of these the latest `limit`."""

    async def spans(self) -> list[SeriesSpan]:
        """Each series there is."""

    async def gaps(self, symbol: str, start: int | None = None, end: int | None = None) -> list[FeedGap]:
        """The symbol's gaps that overlap a time, µs."""

    async def status(self, symbol: str) -> FeedStatus | None:
        """How the symbol's feed was when it was said last; None when nothing was said of it."""


class CandleStep(NamedTuple):
    """The candles that closed at one time (µs), in the order (timeframe, symbol)."""

    close_time: int
    candles: Sequence[Candle]


async def check_series(source: CandleSource, wanted: Collection[SeriesName]) -> None:
    """Raise UsageError that says what there is, unless the source has candles of each of these."""
    check_known(await source.spans(), wanted, "there are no candles at all")


async def read_steps(
    source: CandleSource, series: Sequence[SeriesName], after: int | None = None, until: int | None = None
) -> AsyncIterator[CandleStep]:
    """All candles that close after `after` and by `until` (µs), those of one close time together, in order of time."""
    streams = [
        source.read(
            key.symbol,
            key.timeframe,
            None if after is None else after - key.length_us + 1,
            None if until is None else until - key.length_us + 1,
        )
        for key in series
    ]
    heads: list[tuple[int, int, str, int, Candle]] = []

    async def take(number: int) -> None:
        candle = await anext(streams[number], None)
        if candle is not None:
            heappush(heads, (*step_order(candle), number, candle))

    for number in range(len(streams)):
        await take(number)
    while heads:
        close_time = heads[0][0]
        candles = []
        while heads and heads[0][0] == close_time:
            _, _, _, number, candle = heappop(heads)
            candles.append(candle)
            await take(number)
        yield CandleStep(close_time, candles)


async def read_startup(source: CandleSource, counts: Mapping[SeriesName, int], until: int) -> list[CandleStep]:
    """The last so many candles of each series that close by `until` (µs); those of one close time together."""
    candles = [
        candle
        for key, count in counts.items()
        async for candle in source.read(key.symbol, key.timeframe, None, until - key.length_us + 1, count)
    ]
    candles.sort(key=step_order)
    return [
        CandleStep(close_time, list(group)) for close_time, group in groupby(candles, lambda candle: candle.close_time)
    ]


async def completeness(
    source: CandleSource, symbols: Collection[str], start: int | None, end: int | None
) -> Callable[[Candle], bool | None]:
    """What tells whether a candle that closes from `start` to `end` (µs) lacks no trade; None where nothing is said."""
    known = {}
    for symbol in symbols:
        status = await source.status(symbol)
        if status is not None:
            since = None if start is None else start - LONGEST_US
            gaps = [gap for gap in await source.gaps(symbol, since, end) if gap.state != "repaired"]
            known[symbol] = status.complete_until, gaps

    def tell(candle: Candle) -> bool | None:
        said = known.get(candle.symbol)
        return None if said is None else is_complete(candle.open_time, candle.close_time, *said)

    return tell
