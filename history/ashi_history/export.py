"""`ashi history export`: trades out of topic `trades`, or out of a lake, into recordings.

They stand in the order of their times, each once, with every field that they have in the topic: whoever reads them
makes the same candles as of the trades there. What is written can be imported, loaded, replayed and verified. One that
was killed goes on behind the last trade that counts, if the source still has exactly those that were written.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import ContractError, StateError, UsageError
from ashi.contracts.symbol import split_symbol
from ashi.contracts.timeframe import format_time
from ashi.contracts.trade import EARLIEST_US
from ashi.runtime.spelling import did_you_mean
from ashi.runtime.wall_clock import now_us
from ashi_history.export_sources import LakeExport, TopicExport, place_of
from ashi_history.fetched_files import EXPORT, FetchedFiles, read_state, state_path
from ashi_history.telling import Told
from ashi_ingest.history.progress import time_in_words
from ashi_ingest.known_venues import venue_named
from ashi_ingest.venues.registry import VENUES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ashi.contracts.trade import Trade
    from ashi.runtime.settings import Settings
    from ashi_history.export_sources import ExportSource

WRITTEN_AT_ONCE: Final = 50_000
"""Trades that are compressed together, and counted once they are on disk."""
RECENT_US: Final = 60_000_000
"""Of what happened so shortly ago, µs, some may be on its way: it is not exported."""
SHORTS_TOLD: Final = 10


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Which trades: of `symbols`, or of all, from when (inclusive) to when (exclusive), µs.

    `from_us`: None for the first one there is. `to_us`: None for a minute ago, or, where an export is gone on with,
    what it was there. `lake`: its URL, None for the topic.
    """

    directory: Path
    symbols: Sequence[str] = ()
    from_us: int | None = None
    to_us: int | None = None
    lake: str | None = None


def run_export(settings: Settings, options: ExportOptions, tell: Callable[[str], None]) -> int:
    """Write them; gives the exit status.

    Raises UsageError for a symbol, a time or a directory that cannot be, or where there are no such trades, StateError
    where the source has become another one since a part was written, StorageError for a lake that there is not,
    BrokerError without Kafka.
    """
    newest_us = now_us() - RECENT_US
    _check(options, newest_us)
    symbols = list(dict.fromkeys(options.symbols))
    if not symbols or not all(_is_whole(options, symbol) for symbol in symbols):
        asyncio.run(_export(settings, options, newest_us, tell))
        return 0
    for symbol in symbols:
        with _files(options, symbol, newest_us) as files:
            _tell_outcome(files, options, tell)
    return 0


def _check(options: ExportOptions, newest_us: int) -> None:
    for symbol in options.symbols:
        try:
            venue, _ = split_symbol(symbol)
        except ContractError as error:
            raise UsageError(f"--symbol: {error}") from None
        venue_named(venue, "--symbol: ")
    if options.to_us is not None and options.to_us > newest_us:
        raise UsageError(
            f"--to {time_in_words(options.to_us)} is not a minute ago yet: leave --to out for what there is"
        )
    if (options.from_us or EARLIEST_US) >= (newest_us if options.to_us is None else options.to_us):
        raise UsageError("--from must be before --to, and more than a minute ago")


def _is_whole(options: ExportOptions, symbol: str) -> bool:
    state = read_state(state_path(options.directory, symbol))
    return state is not None and state.is_whole


def _files(options: ExportOptions, symbol: str, newest_us: int) -> FetchedFiles:
    from_us = EARLIEST_US if options.from_us is None else options.from_us
    return FetchedFiles(
        options.directory, symbol, from_us, options.to_us, newest_us=newest_us, overlap=True, command=EXPORT
    )


async def _export(settings: Settings, options: ExportOptions, newest_us: int, tell: Callable[[str], None]) -> None:
    to_us = newest_us if options.to_us is None else options.to_us
    source: ExportSource
    if options.lake is None:
        source = TopicExport(
            settings, options.symbols, options.from_us or EARLIEST_US, to_us, directory=options.directory, tell=tell
        )
    else:
        source = LakeExport(options.lake, tell)
    is_any = False
    async with source:
        there = await source.symbols()
        for symbol in dict.fromkeys(options.symbols) or there:
            if symbol.partition(":")[0] not in VENUES:
                tell(f"{symbol}: left out, as no recording can be of this venue: Ashi does not know it")
                continue
            with _files(options, symbol, newest_us) as files:
                if files.state.is_whole or (symbol in there and await _write(source, files, tell)):
                    is_any = True
                    _tell_outcome(files, options, tell)
                elif options.symbols:
                    raise UsageError(
                        f"there are no trades of {symbol} of that time in {source.where}"
                        + (did_you_mean(symbol, {*there} - {symbol}) or ": correct --symbol or --from")
                    )
    if not is_any:
        raise UsageError(f"there are no trades of that time in {source.where}: correct --from")


async def _write(source: ExportSource, files: FetchedFiles, tell: Callable[[str], None]) -> bool:
    """Write what is not written yet; whether there is anything at all."""
    state = files.state
    # Before anything is written of what may be read by itself.
    files.note_shorts(await source.shorts(state.symbol, state.from_us, state.to_us))
    writer = _Writer(files, source.where)
    told: Told | None = None
    reached = 0
    async for trades in source.trades(state.symbol, state.from_us, state.to_us):
        if not trades:
            continue
        if told is None:
            reached = trades[0].traded_at
            told = Told(f"{state.symbol}: writing", state.to_us - reached, tell)
        writer.add(trades)
        told.add(trades[-1].traded_at - reached)
        reached = trades[-1].traded_at
    if told is None and not state.trades:
        return False
    writer.finish()
    return True


class _Writer:
    """Writes what was not written yet, if all that was is still what the source has up to there."""

    def __init__(self, files: FetchedFiles, where: str) -> None:
        self._files = files
        self._where = where
        self._last = files.state.last
        self._written = files.state.trades
        self._there = 0
        self._waiting: list[Trade] = []

    def add(self, trades: Sequence[Trade]) -> None:
        """Take the next ones, in the order of `place_of`. Raises StateError, OSError."""
        new = trades
        if self._last is not None:
            end = place_of(self._last)
            new = [trade for trade in trades if place_of(trade) > end]
            self._there += len(trades) - len(new)
        if not new:
            return
        self._check()
        self._waiting += new
        if len(self._waiting) >= WRITTEN_AT_ONCE:
            self._flush()

    def finish(self) -> None:
        """That was all. Raises StateError, OSError."""
        self._check()
        self._flush()
        self._files.finish()

    def _check(self) -> None:
        """A trade that came late would be missing, one that was deleted may not be the only one."""
        if self._last is None or self._there == self._written:
            return
        state = self._files.state
        raise StateError(
            f"{self._where} has {self._there:,} trades of {state.symbol} up to "
            f"{format_time(self._last.traded_at)} UTC, and {self._written:,} were written: some have come late, or are "
            "not kept any more, since the export was broken off. Export into another directory"
        )

    def _flush(self) -> None:
        if self._waiting:
            self._files.write(self._waiting)
            self._waiting = []


def _tell_outcome(files: FetchedFiles, options: ExportOptions, tell: Callable[[str], None]) -> None:
    state = files.state
    for short in state.shorts[:SHORTS_TOLD]:
        tell(
            f"{state.symbol}: trades may be missing from {time_in_words(short.from_us)} to "
            f"{time_in_words(short.to_us)}: {short.reason}"
        )
    if len(state.shorts) > SHORTS_TOLD:
        tell(f"{state.symbol}: and in {len(state.shorts) - SHORTS_TOLD:,} more times")
    names = files.names
    where = f", {names[0]} to {names[-1]} in {options.directory}" if names else ""
    tell(f"{state.symbol}: {state.trades:,} trades in {len(names)} files{where}")
