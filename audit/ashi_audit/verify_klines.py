"""`ashi verify --klines`: stored candles against those that the exchange itself publishes, from a file or over REST."""

from __future__ import annotations

import csv
import io
import sys
import zipfile
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import ContractError, UsageError
from ashi.contracts.timeframe import Timeframe
from ashi.runtime.settings.parsers import format_duration
from ashi.runtime.spelling import did_you_mean
from ashi_audit.kline_check import open_check
from ashi_audit.report import Report
from ashi_audit.request import check_request, not_compared
from ashi_audit.venue_candles import note_venue_candles
from ashi_ingest.recording.contents import BAD_ARCHIVE
from ashi_ingest.rest.client import RestClient
from ashi_ingest.rest.klines import KlineFetch
from ashi_ingest.venues.registry import KLINE_FILE, KLINE_VENUES, VENUES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ashi.runtime.settings import Settings
    from ashi_audit.request import VerifyOptions
    from ashi_ingest.venues.base import Kline
    from ashi_sinks.protocol import CandleReader

ROWS_AT_ONCE: Final = 1_000
_FILES: Final = (".csv", ".zip")


async def verify_klines(settings: Settings, options: VerifyOptions, source: str) -> int:
    """Compare and print; the exit status: 0 when all is equal or explained, else 1. `source`: a file, or a venue.

    Raises UsageError when there is nothing to compare, NotComparedError when something is out of reach.
    """
    from rich.console import Console

    from ashi_sinks.registry import open_reader

    check_request(options.symbols, options.start, options.end)
    report = Report(Console(), expected="kline", as_json=options.json)
    with not_compared():
        async with open_reader(options.storage) as reader:
            stored = [(span.symbol, span.timeframe) for span in await reader.spans()]
            _check_stored(options, stored)
            series = [(symbol, name) for symbol, name in stored if options.wants(symbol, name)]
            await note_venue_candles(reader, options, report)
            if source.lower().endswith(_FILES) or "/" in source:
                await _verify_file(Path(source), reader, options, series, report)
            else:
                await _verify_venue(settings, source, reader, options, series=series, report=report)
    if not report.counts["compared"]:
        nothing = f"there is nothing to compare: {source} and the store have no candles of the same time"
        raise UsageError(". ".join([nothing, *report.notes]))
    return report.finish()


def _check_stored(options: VerifyOptions, stored: Sequence[tuple[str, str]]) -> None:
    for symbol in options.symbols:
        known = {stored_symbol for stored_symbol, _ in stored}
        if symbol not in known:
            right = did_you_mean(symbol, known) or ": correct --symbol"
            raise UsageError(f"there are no candles of {symbol} in the store{right}")
    names = dict.fromkeys(name for _, name in stored)
    for timeframe in options.timeframes:
        if timeframe not in names:
            right = did_you_mean(timeframe, names)
            raise UsageError(f"there are no candles of {timeframe} in the store; there are {', '.join(names)}{right}")


async def _verify_file(
    path: Path, reader: CandleReader, options: VerifyOptions, series: Sequence[tuple[str, str]], report: Report
) -> None:
    rows = read_file(path)
    batch = list(islice(rows, ROWS_AT_ONCE))
    if not batch:
        raise UsageError(f"{path} has no klines")
    timeframe = _timeframe_of(path, batch)
    if options.timeframes and str(timeframe) not in options.timeframes:
        raise UsageError(f"{path} has klines of {timeframe}: correct --timeframe, or name another file")
    check = await open_check(
        reader, _symbol_of(path, timeframe, series), timeframe, options, report, has="the file has"
    )
    start = batch[0].open_time
    while batch:
        end = batch[-1].open_time + 1
        await check.compare(batch, start, end)
        start, batch = end, list(islice(rows, ROWS_AT_ONCE))
    check.note_odd()


def read_file(path: Path) -> Iterator[Kline]:
    """The klines of a CSV file as they are published (KLINE_FILE), or of the one in a .zip; with a header or without.

    Raises UsageError that names the line.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.lower().endswith(".csv")]
                if len(names) != 1:
                    publisher = KLINE_FILE.publisher
                    raise UsageError(
                        f"{path} holds {len(names)} CSV files: one is expected, as {publisher} publishes them"
                    )
                with archive.open(names[0]) as file:
                    yield from _read_rows(path, io.TextIOWrapper(file, encoding="utf-8", newline=""))
        else:
            with path.open(encoding="utf-8", newline="") as text:
                yield from _read_rows(path, text)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, *BAD_ARCHIVE) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _read_rows(path: Path, text: io.TextIOBase) -> Iterator[Kline]:
    for number, row in enumerate(csv.reader(text), 1):
        if not row or (number == 1 and not row[0].strip().isdigit()):
            continue  # the header
        try:
            yield KLINE_FILE.read_row(row)
        except ContractError as error:
            raise UsageError(
                f"{path}, line {number}: {error}; it must be a file of klines of {KLINE_FILE.publisher}"
            ) from None


def _timeframe_of(path: Path, klines: Sequence[Kline]) -> Timeframe:
    """By how long most of them are: some may be cut short, or not begin on their interval."""
    [(length_us, _)] = Counter(kline.length_us for kline in klines).most_common(1)
    seconds, rest = divmod(length_us, 1_000_000)
    try:
        return Timeframe.parse(f"{seconds}s" if not rest else f"{length_us} µs")
    except ContractError as error:
        raise UsageError(f"{path}: its klines are {length_us / 1e6:g} s long: {error}") from None


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
    if venue not in VENUES:
        raise UsageError(f"{venue!r} is neither a file nor a venue with klines: write one of {', '.join(KLINE_VENUES)}")
    klines = VENUES[venue].klines
    if klines is None:
        raise UsageError(
            f"{VENUES[venue].title} publishes no klines; `ashi verify --trades` compares with the trades themselves"
        )
    live = VENUES[venue].live(has_key=False)
    patience_us = settings.repair_patience_us

    def tell(error: Exception) -> None:
        patience = format_duration(patience_us)
        print(f"{venue} does not answer ({error}), trying again for up to {patience}", file=sys.stderr)

    async with RestClient(live, settings.rest_url or live.limits.rest_url, None) as rest:
        fetch = KlineFetch(venue, klines, rest, patience_s=patience_us / 1e6, tell=tell)
        for symbol, name in series:
            venue_of_symbol, _, market = symbol.partition(":")
            timeframe = Timeframe.parse(name)
            if venue_of_symbol != venue:
                continue
            if not klines.covers(timeframe):
                report.note(f"{venue} publishes no klines of the same windows as {name}")
                continue
            check = await open_check(reader, symbol, timeframe, options, report, has="the exchange publishes")
            for page in klines.pages(market, timeframe, check.start, check.end):
                await check.compare(await fetch.page(page, timeframe), page.start, page.end)
            check.note_odd()
