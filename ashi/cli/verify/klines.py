"""`ashi verify --klines`: stored candles against those that the exchange itself publishes, from a file or over REST."""

from __future__ import annotations

import asyncio
import csv
import io
import time
import zipfile
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ashi.cli.verify.differences import NONE, WHOLE, Difference, Report, text_of, trades_text
from ashi.contracts.errors import ContractError, UsageError, VenueError
from ashi.contracts.timeframe import Timeframe
from ingest.live.policy import Backoff
from ingest.live.rest import Rest, RestError
from ingest.venues import LIVE_VENUES
from ingest.venues.klines import KLINE_VENUES, Kline, has_klines, kline_pages, read_binance_row, read_klines
from sinks.protocol import overlaps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ashi.cli.verify.trades import VerifyOptions
    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap
    from ashi.runtime.settings import Settings
    from ingest.venues.klines import Page
    from sinks.protocol import CandleReader

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
ROWS_AT_ONCE: Final = 1_000
_FILES: Final = (".csv", ".zip")


async def verify_klines(settings: Settings, options: VerifyOptions, source: str) -> int:
    """Compare and print; the exit status: 0 when all is equal or explained, else 1. `source`: a file, or a venue.

    Raises UsageError when there is nothing to compare, StorageError, VenueError.
    """
    from rich.console import Console

    from sinks.registry import open_reader

    report = Report(Console(), expected="kline", as_json=options.json)
    async with open_reader(options.storage) as reader:
        series = [one for one in await reader.series() if options.wants(*one)]
        if source.lower().endswith(_FILES) or "/" in source:
            await _verify_file(Path(source), reader, options, series, report)
        else:
            await _verify_venue(settings, source, reader, options, series=series, report=report)
    if not report.counts["compared"]:
        raise UsageError(f"there is nothing to compare: {source} and the store have no candles of the same time")
    return report.finish()


async def _verify_file(
    path: Path, reader: CandleReader, options: VerifyOptions, series: Sequence[tuple[str, str]], report: Report
) -> None:
    rows = read_file(path)
    first = next(rows, None)
    if first is None:
        raise UsageError(f"{path} has no klines")
    timeframe = _timeframe_of(path, first)
    check = await _open_check(reader, _symbol_of(path, timeframe, series), timeframe, options, report)
    some = [first, *islice(rows, ROWS_AT_ONCE - 1)]
    while some:
        await check.compare(some, some[0].open_time, some[-1].open_time + 1)
        some = list(islice(rows, ROWS_AT_ONCE))


def read_file(path: Path) -> Iterator[Kline]:
    """The klines of a CSV file as Binance publishes them, or of the one in a .zip; with a header or without.

    Raises UsageError that names the line.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.lower().endswith(".csv")]
                if len(names) != 1:
                    raise UsageError(f"{path} holds {len(names)} CSV files: one is expected, as Binance publishes them")
                with archive.open(names[0]) as file:
                    yield from _read_rows(path, io.TextIOWrapper(file, encoding="utf-8", newline=""))
        else:
            with path.open(encoding="utf-8", newline="") as text:
                yield from _read_rows(path, text)
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _read_rows(path: Path, text: io.TextIOBase) -> Iterator[Kline]:
    for number, row in enumerate(csv.reader(text), 1):
        if not row or (number == 1 and not row[0].strip().isdigit()):
            continue  # the header
        try:
            yield read_binance_row(row)
        except ContractError as error:
            raise UsageError(f"{path}, line {number}: {error}; it must be a file of klines of Binance") from None


def _timeframe_of(path: Path, kline: Kline) -> Timeframe:
    seconds, rest = divmod(kline.length_us, 1_000_000)
    try:
        return Timeframe.parse(f"{seconds}s" if not rest else f"{kline.length_us} µs")
    except ContractError as error:
        raise UsageError(f"{path}: its klines are {kline.length_us / 1e6:g} s long: {error}") from None


def _symbol_of(path: Path, timeframe: Timeframe, series: Sequence[tuple[str, str]]) -> str:
    """The stored symbol that a file is about: the only one that is wanted, or that its name begins with."""
    symbols = [symbol for symbol, name in series if name == str(timeframe)]
    if not symbols:
        raise UsageError(f"the store has no candles of {timeframe} to compare {path} with; look at --symbol")
    if len(symbols) > 1:
        named = path.name.split("-")[0].split(".")[0].upper()
        symbols = [symbol for symbol in symbols if symbol.partition(":")[2].upper() == named]
    if len(symbols) != 1:
        raise UsageError(f"{path}: name the symbol it is about with --symbol, such as binance:BTCUSDT")
    return symbols[0]


async def _verify_venue(
    settings: Settings,
    venue: str,
    reader: CandleReader,
    options: VerifyOptions,
    *,
    series: Sequence[tuple[str, str]],
    report: Report,
) -> None:
    if venue == "bitflyer":
        raise UsageError("bitFlyer publishes no klines; `ashi verify --trades` compares with the trades themselves")
    if venue not in KLINE_VENUES:
        raise UsageError(f"{venue!r} is neither a file nor a venue with klines: write one of {', '.join(KLINE_VENUES)}")
    live = LIVE_VENUES[venue](has_key=False)
    async with Rest(live, settings.rest_url or live.limits.rest_url, None) as rest:
        for symbol, name in series:
            of, _, market = symbol.partition(":")
            timeframe = Timeframe.parse(name)
            if of != venue:
                continue
            if not has_klines(venue, timeframe):
                report.note(f"{venue} publishes no klines of the same windows as {name}")
                continue
            check = await _open_check(reader, symbol, timeframe, options, report)
            for page in kline_pages(venue, market, timeframe, check.start, check.end):
                klines = await _ask(rest, page, venue, timeframe, settings.repair_patience_us / 1e6)
                within = [kline for kline in klines if page.start <= kline.open_time < page.end]
                await check.compare(within, page.start, page.end)


async def _ask(rest: Rest, page: Page, venue: str, timeframe: Timeframe, patience_s: float) -> list[Kline]:
    """Ask until there is an answer, for as long as a repair would."""
    backoff = Backoff()
    give_up_s = time.monotonic() + patience_s
    while True:
        try:
            return read_klines(venue, timeframe, (await rest.get(page.request)).body)
        except ContractError as error:
            raise VenueError(f"{venue}: {error}") from None
        except RestError as error:
            if error.retry_after_s is None:
                raise
            wait_s = max(error.retry_after_s, backoff.next_s())
            if time.monotonic() + wait_s > give_up_s:
                raise
        await asyncio.sleep(wait_s)


async def _open_check(
    reader: CandleReader, symbol: str, timeframe: Timeframe, options: VerifyOptions, report: Report
) -> KlineCheck:
    """A check of what is stored of a series, from its first candle to its last."""
    name = str(timeframe)
    first = await anext(reader.read(symbol, name), None)
    last = [candle async for candle in reader.read(symbol, name, limit=1)]
    assert first is not None  # noqa: S101  (the store has told of the series)
    start, end = max(options.start, first.open_time), min(options.end, last[-1].open_time + 1)
    gaps = await reader.gaps(symbol, start, end + timeframe.length_us)
    unrepaired = [gap for gap in gaps if gap.state != "repaired"]
    return KlineCheck(reader, symbol, timeframe, report, first=first.open_time, bounds=(start, end), gaps=unrepaired)


class KlineCheck:
    """Compares one stored series with klines. `start` and `end` (exclusive), µs: what of it is compared."""

    def __init__(
        self,
        reader: CandleReader,
        symbol: str,
        timeframe: Timeframe,
        report: Report,
        *,
        first: int,
        bounds: tuple[int, int],
        gaps: Sequence[FeedGap],
    ) -> None:
        """`first`: open time of the first candle stored at all, µs. `gaps`: of the symbol's feed, not repaired."""
        self._reader = reader
        self._symbol = symbol
        self._venue = symbol.partition(":")[0]
        self._timeframe = timeframe
        self._report = report
        self._first = first
        self.start, self.end = bounds
        self._gaps = gaps

    async def compare(self, klines: Sequence[Kline], start: int, end: int) -> None:
        """Compare the klines of a time, all there are of it, with the candles stored of it."""
        start, end = max(start, self.start), min(end, self.end)
        if start >= end:
            return
        candles = self._reader.read(self._symbol, str(self._timeframe), start=start, end=end)
        stored = {candle.open_time: candle async for candle in candles}
        units = {name: _unit([getattr(kline, name) for kline in klines]) for name in PRODUCTS}
        published = {kline.open_time: kline for kline in klines if start <= kline.open_time < end}
        for open_time in sorted({*stored, *published}):
            found = list(self._check(open_time, stored.get(open_time), published.get(open_time), units))
            self._report.counts["compared"] += 1
            self._report.add(self._excused(found, open_time))

    def _check(
        self, open_time: int, candle: Candle | None, kline: Kline | None, units: Mapping[str, Decimal]
    ) -> Iterator[Difference]:
        if kline is None:
            if candle is not None and candle.trade_count:
                count = trades_text(candle.trade_count)
                yield self._difference(open_time, WHOLE, count, NONE, "the exchange publishes none of this time")
        elif candle is None:
            if kline.volume:
                yield self._difference(open_time, WHOLE, NONE, f"volume {kline.volume}", "the store does not have it")
        elif candle.trade_count or kline.volume:  # a venue may fill quiet times in another way than with the close
            yield from self._fields(candle, kline, units)

    def _fields(self, candle: Candle, kline: Kline, units: Mapping[str, Decimal]) -> Iterator[Difference]:
        for name in FIELDS:
            mine, other = getattr(candle, name), getattr(kline, name)
            if other is None or mine == other:
                continue
            why, explained = self._reason(candle, kline), False
            if name in PRODUCTS and abs(mine - other) <= candle.trade_count * units[name]:
                why, explained = "the kline is rounded, to so many digits of each trade", True
            elif self._venue == "gmo" and name == "volume" and other == 2 * mine:
                why, explained = "GMO counts every execution twice here, for the buyer and for the seller", True
            yield self._difference(candle.open_time, name, text_of(mine), text_of(other), why, explained=explained)

    def _reason(self, candle: Candle, kline: Kline) -> str:
        mine, other = (candle.volume, kline.volume)
        if kline.trade_count is not None and kline.trade_count != candle.trade_count:
            mine, other = (candle.trade_count, kline.trade_count)  # type: ignore[assignment]
        if mine < other:
            return "trades were not received, or came too late (`ashi verify --trades` tells which)"
        if mine > other and self._venue == "binance-usdm":
            return (
                "trades that are not MARKET (insurance fund, auto-deleveraging) count in no kline; older recordings do "
                "not tell them apart"
            )
        return ""

    def _excused(self, found: list[Difference], open_time: int) -> list[Difference]:
        close_time = open_time + self._timeframe.length_us
        why = None
        if open_time == self._first:
            why = "the first candle of the store: its trades are there only from some time in it on"
        elif any(overlaps(gap, open_time, close_time) for gap in self._gaps):
            why = "the feed was interrupted, and what was missed was not got"
        return (
            found if why is None else [one if one.explained else one._replace(why=why, explained=True) for one in found]
        )

    def _difference(
        self, open_time: int, field: str, stored: str, kline: str, why: str, *, explained: bool = False
    ) -> Difference:
        return Difference(self._symbol, str(self._timeframe), open_time, field, stored, kline, why, explained=explained)


def _unit(values: Sequence[Decimal | None]) -> Decimal:
    """One in the last place that any of these shows; venues pad with zeros, spreadsheets cut them off."""
    places = [-int(value.as_tuple().exponent) for value in values if value is not None]
    return Decimal(1).scaleb(-max([0, *places]))
