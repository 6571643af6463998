"""One series of a venue's own candles: which of its pages the store lacks, and those that come checked and stored."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from msgspec.structs import replace

from ashi.contracts.candle import check_candle
from ashi.contracts.errors import ContractError, VenueError
from ashi.contracts.symbol import split_symbol
from ashi.contracts.timeframe import format_time
from ashi.contracts.venue_candle import VenueCandle
from ashi.runtime.retry import retry
from ashi.runtime.wall_clock import now_us
from ashi_ingest.history.progress import in_minutes, time_in_words
from ashi_sinks.protocol import RetryableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ashi.contracts.timeframe import Timeframe
    from ashi_ingest.rest.klines import KlineFetch
    from ashi_ingest.venues.base import Kline, KlinePage, Klines
    from ashi_sinks.protocol import CandleReader, Sink

TELL_INTERVAL_S: Final = 5.0
WRITTEN_AT_ONCE: Final = 20_000
WRITTEN_AFTER_S: Final = 10.0
"""What has come is written so often at least, and no sooner unless it is much: in a lake each time makes files."""
STORE_PATIENCE_S: Final = 60.0

_T = TypeVar("_T")


class _Unless(Protocol):
    """What does some work unless the process is told to stop."""

    async def __call__(self, work: Awaitable[_T]) -> _T: ...


class KlineSeries:
    """The candles of one symbol and timeframe, from the venue into the store."""

    def __init__(
        self,
        symbol: str,
        timeframe: Timeframe,
        klines: Klines,
        fetch: KlineFetch,
        *,
        reader: CandleReader,
        sink: Sink,
        tell: Callable[[str], None],
    ) -> None:
        """`reader` and `sink`: of the same store, open."""
        self._symbol = symbol
        self._timeframe = timeframe
        self._klines = klines
        self._fetch = fetch
        self._reader = reader
        self._sink = sink
        self._tell = tell
        self._waiting: list[VenueCandle] = []
        self._written_s = 0.0
        self._came = self._new = self._odd = 0

    async def run(self, from_us: int, to_us: int, unless_stopped: _Unless) -> None:
        """Store those that open in the time, µs, `to_us` exclusive.

        What has come by then is stored also when it ends with an error. Raises RestError when there is no answer,
        VenueError for one that cannot be read, StorageError, and StoppedError.
        """
        _, market = split_symbol(self._symbol)
        pages = list(self._klines.pages(market, self._timeframe, from_us, to_us))
        lacking = [page for page in pages if not await self._is_stored(page, from_us)]
        name = f"{self._symbol} {self._timeframe}"
        begun_s = told_s = self._written_s = time.monotonic()
        try:
            for asked, page in enumerate(lacking, 1):
                klines = await unless_stopped(self._fetch.page(page, self._timeframe))
                self._take([kline for kline in klines if from_us <= kline.open_time < to_us])
                now_s = time.monotonic()
                if len(self._waiting) >= WRITTEN_AT_ONCE or now_s - self._written_s >= WRITTEN_AFTER_S:
                    await self._write()
                if now_s - told_s >= TELL_INTERVAL_S and asked < len(lacking):
                    told_s = now_s
                    left_s = (now_s - begun_s) / asked * (len(lacking) - asked)
                    self._tell(
                        f"{name}: {asked:,} of {len(lacking):,} requests, up to {time_in_words(page.end)}, "
                        f"{self._came:,} candles; about {in_minutes(left_s)} are left"
                    )
        finally:
            await self._write()
        if self._odd:
            self._tell(f"{name}: {self._odd:,} candles do not begin on their interval, or last longer: left out")
        there = len(pages) - len(lacking)
        self._tell(
            f"{name}: all of it is there: {self._came:,} candles by {len(lacking):,} requests, {self._new:,} of them "
            f"new or asked for again" + (f"; the store had the rest ({there:,} requests)" if there else "")
        )

    async def _is_stored(self, page: KlinePage, from_us: int) -> bool:
        """Whether the store has a candle of each window of a page; if the venue leaves some out, it is asked again."""
        start, length_us = max(page.start, from_us), self._timeframe.length_us
        windows = -(-page.end // length_us) - -(-start // length_us)
        stored = self._reader.venue_candles(self._symbol, str(self._timeframe), start, page.end)
        return windows == len([None async for _ in stored])

    def _take(self, klines: Sequence[Kline]) -> None:
        fetched_at = now_us()
        for kline in klines:
            whole = self._timeframe.length_us
            if kline.open_time != self._timeframe.open_time(kline.open_time) or kline.length_us != whole:
                self._odd += 1
                continue
            self._waiting.append(self._candle(kline, fetched_at))
            self._came += 1

    def _candle(self, kline: Kline, fetched_at: int) -> VenueCandle:
        candle = VenueCandle(
            symbol=self._symbol,
            timeframe=str(self._timeframe),
            open_time=kline.open_time,
            close_time=kline.open_time + kline.length_us,
            open=kline.open,
            high=kline.high,
            low=kline.low,
            close=kline.close,
            volume=kline.volume,
            quote_volume=kline.quote_volume,
            trade_count=kline.trade_count,
            taker_buy_volume=kline.taker_buy_volume,
            taker_buy_quote_volume=kline.taker_buy_quote_volume,
            source="venue",
            fetched_at=fetched_at,
        )
        try:
            check_candle(replace(candle.as_candle(), version=0))
        except ContractError as error:
            raise VenueError(
                f"{self._symbol}: the kline of {self._timeframe} at {format_time(kline.open_time)} is invalid: {error}"
            ) from None
        return candle

    async def _write(self) -> None:
        if self._waiting:
            batch = list({candle.open_time: candle for candle in self._waiting}.values())
            self._new += await while_away(lambda: self._sink.write_venue_candles(batch))
            self._waiting = []
        self._written_s = time.monotonic()


async def while_away(attempt: Callable[[], Awaitable[_T]]) -> _T:
    """Do what a store cannot do at the moment, as while a worker writes to it, for a minute. Raises StorageError."""
    return await retry(
        attempt,
        least_wait_s=lambda error: 0.0 if isinstance(error, RetryableError) else None,
        patience_s=STORE_PATIENCE_S,
        on_wait=lambda error, _: print(f"waiting: {error}", file=sys.stderr),
    )
