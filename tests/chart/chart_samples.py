"""A store and a page for the tests of the chart that need no real ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec

from ashi.contracts.candle import Candle
from ashi.contracts.decimals import format_decimal
from ashi.contracts.feed import FeedGap, FeedStatus, overlaps
from ashi.contracts.venue_candle import VenueCandle
from ashi_chart.candles.bars import CLOSED, Bar
from ashi_chart.candles.rollup import Rollup
from ashi_chart.pages.outbox import Outbox
from ashi_sinks.protocol import SeriesSpan
from samples.candles import BTC, a_candle


class StoreInMemory:
    """A `CandleReader` of what it is given."""

    def __init__(
        self, candles: list[Candle], gaps: list[FeedGap] | None = None, venue: list[VenueCandle] | None = None
    ) -> None:
        self._venue = venue or []
        self._candles = sorted(candles, key=lambda candle: candle.open_time)
        self._gaps = gaps or []

    async def open(self) -> None: ...

    async def read(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[Candle]:
        chosen = [
            candle
            for candle in self._candles
            if (candle.symbol, candle.timeframe) == (symbol, timeframe)
            and (start is None or candle.open_time >= start)
            and (end is None or candle.open_time < end)
        ]
        for candle in chosen if limit is None else chosen[max(len(chosen) - limit, 0) :]:
            await asyncio.sleep(0)
            yield candle

    async def spans(self) -> list[SeriesSpan]:
        raise NotImplementedError

    async def count(self, symbol: str | None = None, timeframe: str | None = None) -> int:
        raise NotImplementedError

    async def greatest_version(self) -> int | None:
        raise NotImplementedError

    async def gaps(self, symbol: str, start: int | None = None, end: int | None = None) -> list[FeedGap]:
        assert symbol == BTC
        return [gap for gap in self._gaps if overlaps(gap, start or 0, end or 2**62)]

    async def status(self, symbol: str) -> FeedStatus | None:
        raise NotImplementedError

    async def statuses(self) -> list[FeedStatus]:
        raise NotImplementedError

    async def venue_candles(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[VenueCandle]:
        chosen = [
            candle
            for candle in self._venue
            if (start is None or candle.open_time >= start) and (end is None or candle.open_time < end)
        ]
        for candle in chosen if limit is None else chosen[max(len(chosen) - limit, 0) :]:
            yield candle

    async def venue_spans(self) -> list[SeriesSpan]:
        times = [candle.open_time for candle in self._venue]
        return [SeriesSpan(BTC, "1m", min(times), max(times))] if times else []

    async def close(self) -> None: ...


class PageInMemory:
    """Watches a series with an outbox, as a conversation does, and holds what a page would."""

    def __init__(self) -> None:
        self.out = Outbox()
        self.out.wants_snapshot = True
        self.bars: dict[int, Bar] = {}

    def on_bars(self, bars: Iterable[tuple[int, bytes]]) -> None:
        self.out.put_bars(bars, 0.0)

    def on_loaded(self) -> None:
        self.out.wants_snapshot = True

    def on_trouble(self, sentence: str) -> None:
        self.out.put_error("series", sentence)

    def replace(self, snapshot: Iterable[bytes]) -> None:
        self.bars = {bar.open_time: bar for bar in map(decoded, snapshot)}

    def take_bars(self) -> None:
        for bar in map(decoded, self.out.take_bars()):
            if not self.bars or bar.open_time >= min(self.bars):
                self.bars[bar.open_time] = bar


def decoded(raw: bytes) -> Bar:
    return msgspec.json.decode(raw, type=Bar)


def candles_of(rollup: Rollup, parts: Iterable[Candle]) -> list[Candle]:
    """The candles of all windows that have a part; `parts`: by open time, one of each."""
    return [rollup.candle_of(of_window) for of_window in rollup.windows_of(parts)]


def a_bar(candle: Candle, flags: int) -> list[Any]:
    """As docs/chart.md says it."""
    text = format_decimal
    return [
        candle.open_time, text(candle.open), text(candle.high), text(candle.low), text(candle.close),
        text(candle.volume), candle.trade_count, candle.version, flags, text(candle.quote_volume),
        text(candle.taker_buy_volume),
    ]  # fmt: skip


def bars(candles: Iterable[Candle], flags: int = CLOSED) -> list[list[Any]]:
    return [a_bar(candle, flags) for candle in candles]


def truth_of(rollup: Rollup, candles: Iterable[Candle]) -> dict[int, tuple[str, int]]:
    """Volume and number of trades of each window, by the greatest version of each part."""
    newest: dict[int, Candle] = {}
    for candle in candles:
        known = newest.get(candle.open_time)
        if known is None or candle.version > known.version:
            newest[candle.open_time] = candle
    of_window: dict[int, list[Candle]] = {}
    for open_time in sorted(newest):
        of_window.setdefault(rollup.window_of(open_time)[0], []).append(newest[open_time])
    return {
        start: (str(sum(part.volume for part in parts)), sum(part.trade_count for part in parts))
        for start, parts in of_window.items()
    }


def a_log(steps: list[tuple[int, bool]]) -> list[Candle]:
    """Candles as they were written: each step closes the next window, corrects one of before, or repeats one."""
    log: list[Candle] = []
    windows = 0
    for version, (back, is_repeat) in enumerate(steps, 1):
        if back and is_repeat and back <= len(log):
            log.append(log[-back])
            continue
        if not back or back > windows:
            windows += 1
        window = windows - 1 if not back or back > windows else windows - back
        log.append(a_candle(window, version, volume=version, trade_count=version))
    return log
