"""One stored series against klines: what differs, and what may be the reason."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

from ashi.contracts.feed import overlaps
from ashi.contracts.late_gaps import is_late_gap
from ashi.contracts.timeframe import format_time
from ashi.runtime.words import counted
from ashi_audit.report import NONE, WHOLE, Difference, excused, text_of
from ashi_ingest.venues.registry import VENUES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap
    from ashi.contracts.timeframe import Timeframe
    from ashi_audit.report import Report
    from ashi_audit.request import VerifyOptions
    from ashi_ingest.venues.base import Kline, Klines
    from ashi_sinks.protocol import CandleReader

FIELDS: Final = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "trade_count",
    "taker_buy_volume",
    "taker_buy_quote_volume",
)
PRODUCTS: Final = {"quote_volume", "taker_buy_quote_volume"}
"""Sums of price * size, which has more digits than a venue shows: it rounds each, or the sum."""


async def open_check(
    reader: CandleReader, symbol: str, timeframe: Timeframe, options: VerifyOptions, report: Report, *, has: str
) -> KlineCheck:
    """A check of what is stored of a series, from its first candle to its last. `has`: see KlineCheck."""
    name = str(timeframe)
    first = await anext(reader.read(symbol, name), None)
    last = [candle async for candle in reader.read(symbol, name, limit=1)]
    assert first is not None  # noqa: S101  (the store has told of the series)
    start, end = max(options.start, first.open_time), min(options.end, last[-1].open_time + 1)
    gaps = await reader.gaps(symbol, start, end + timeframe.length_us)
    unrepaired = [gap for gap in gaps if gap.state != "repaired"]
    status = await reader.status(symbol)
    return KlineCheck(
        reader,
        symbol,
        timeframe,
        report,
        has=has,
        first=first.open_time,
        bounds=(start, end),
        gaps=unrepaired,
        complete_until=None if status is None else status.complete_until,
    )


class KlineCheck:
    """Compares one stored series with klines. `start` and `end` (exclusive), µs: what of it is compared."""

    def __init__(
        self,
        reader: CandleReader,
        symbol: str,
        timeframe: Timeframe,
        report: Report,
        *,
        has: str,
        first: int,
        bounds: tuple[int, int],
        gaps: Sequence[FeedGap],
        complete_until: int | None,
    ) -> None:
        """`has`: who has klines, for `… none of this time`. `first`: open time of the first candle stored at all, µs.

        `gaps`: of the symbol's feed, not repaired. `complete_until`: as the feed's last status says, µs.
        """
        self._has = has
        self._reader = reader
        self._symbol = symbol
        venue = VENUES.get(symbol.partition(":")[0])
        self._klines: Klines | None = None if venue is None else venue.klines
        self._timeframe = timeframe
        self._report = report
        self._first = first
        self.start, self.end = bounds
        self._gaps = gaps
        self._complete_until = complete_until
        self._odd: list[Kline] = []
        self._beside_odd: set[int] = set()
        self._left_out = 0

    async def compare(self, klines: Sequence[Kline], start: int, end: int) -> None:
        """Compare the klines of a time, all there are of it, with the candles stored of it."""
        start, end = max(start, self.start), min(end, self.end)
        if start >= end:
            return
        candles = self._reader.read(self._symbol, str(self._timeframe), start=start, end=end)
        stored = {candle.open_time: candle async for candle in candles}
        units = {name: _unit([getattr(kline, name) for kline in klines]) for name in PRODUCTS}
        published = {kline.open_time: kline for kline in klines if start <= kline.open_time < end}
        for kline in list(published.values()):
            first = self._timeframe.open_time(kline.open_time)
            if kline.open_time != first:
                self._odd.append(published.pop(kline.open_time))
                last = self._timeframe.open_time(kline.open_time + max(kline.length_us, 1) - 1)
                self._beside_odd |= {first, last}
        for open_time in sorted({*stored, *published}):
            candle, own = stored.get(open_time), published.get(open_time)
            if own is None and open_time in self._beside_odd:
                self._left_out += 1
                continue
            found = list(self._check(open_time, candle, own, units))
            self._report.counts["compared"] += 1
            self._report.add(self._excused(found, open_time))

    def note_odd(self) -> None:
        """Everything has been compared: what there is to know of klines that do not begin on their interval.

        Binance's files of 2017 and 2018 have such, after interruptions.
        """
        if self._odd:
            begin = (
                "1 kline does not begin on its interval"
                if len(self._odd) == 1
                else (f"{len(self._odd):,} klines do not begin on their interval, the first")
            )
            self._report.note(
                f"{self._symbol} {self._timeframe}: {begin} ({format_time(self._odd[0].open_time)}): they are of no "
                f"window, and {counted(self._left_out, 'candle')} of their time not compared"
            )

    def _check(
        self, open_time: int, candle: Candle | None, kline: Kline | None, units: Mapping[str, Decimal]
    ) -> Iterator[Difference]:
        if kline is None:
            if candle is not None and candle.trade_count:
                count = counted(candle.trade_count, "trade")
                yield self._difference(open_time, WHOLE, count, NONE, f"{self._has} none of this time")
        elif candle is None:
            if kline.volume:
                yield self._difference(open_time, WHOLE, NONE, f"volume {kline.volume}", "the store does not have it")
        elif candle.trade_count or kline.volume:  # a venue may fill quiet times in another way than with the close
            yield from self._fields(candle, kline, units)

    def _fields(self, candle: Candle, kline: Kline, units: Mapping[str, Decimal]) -> Iterator[Difference]:
        for name in FIELDS:
            stored, published = getattr(candle, name), getattr(kline, name)
            if published is None or stored == published:
                continue
            why, explained = self._reason(candle, kline), False
            if name in PRODUCTS and abs(stored - published) <= candle.trade_count * units[name]:
                why, explained = "the kline is rounded, to so many digits of each trade", True
            elif self._klines is not None and (venues_own := self._klines.explain(name, stored, published)) is not None:
                why, explained = venues_own, True
            yield self._difference(
                candle.open_time, name, text_of(stored), text_of(published), why, explained=explained
            )

    def _reason(self, candle: Candle, kline: Kline) -> str:
        stored, published = (candle.volume, kline.volume)
        if kline.trade_count is not None and kline.trade_count != candle.trade_count:
            stored, published = (candle.trade_count, kline.trade_count)  # type: ignore[assignment]
        if stored < published:
            return "trades were not received, or came too late (`ashi verify --trades` tells which)"
        if stored > published and self._klines is not None:
            return self._klines.uncounted or ""
        return ""

    def _excused(self, found: list[Difference], open_time: int) -> list[Difference]:
        close_time = open_time + self._timeframe.length_us
        why = None
        if open_time == self._first:
            why = "the first candle of the store: its trades are there only from some time in it on"
        elif gaps := [gap for gap in self._gaps if overlaps(gap, open_time, close_time)]:
            why = "the feed was interrupted, and what was missed was not got"
            if all(map(is_late_gap, gaps)):
                why = "trades came too late for it: `ashi rebuild` takes them in"
        elif self._complete_until is not None and close_time > self._complete_until:
            why = "the feed has not been checked up to the end of this candle yet"
        elif open_time in self._beside_odd:
            why = "a kline that does not begin on its interval is of a part of this time"
        return excused(found, why)

    def _difference(
        self, open_time: int, field: str, stored: str, kline: str, why: str, *, explained: bool = False
    ) -> Difference:
        return Difference(self._symbol, str(self._timeframe), open_time, field, stored, kline, why, explained=explained)


def _unit(values: Sequence[Decimal | None]) -> Decimal:
    """One in the last place that any of these shows; venues pad with zeros, spreadsheets cut them off."""
    places = [-int(value.as_tuple().exponent) for value in values if value is not None]
    return Decimal(1).scaleb(-max([0, *places]))
