"""Several recordings as one sequence of trades, in the order in which a replay publishes them. Without Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashi.contracts.errors import RecordingError
from ashi.runtime.words import counted
from ashi_ingest.known_venues import venue_named
from ashi_ingest.recording.check import check_recording
from ashi_ingest.recording.format import read_recording
from ashi_ingest.recording.reader import RecordingReader
from ashi_ingest.recording.trade_files import TradeFileReader, is_trade_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ashi.contracts.trade import Trade


def check_recordings(recordings: Sequence[tuple[str, Path]]) -> None:
    """Raise UsageError unless these are recordings that can be read, of venues there are."""
    for venue, path in recordings:
        venue_named(venue, "--recording: ")
        check_recording(venue, path)


class RecordingSequence:
    """Recordings one after the other; those of one venue are one feed that was written in pieces.

    Attributes:
        with_repairs: the symbols of which the recordings hold what REST brought, too; known once all was read.

    """

    def __init__(self, recordings: Sequence[tuple[str, Path]]) -> None:
        """`recordings`: venue and path of each, as `check_recordings` lets them pass."""
        self._recordings = recordings
        self.with_repairs: set[str] = set()

    def trades(self, on_note: Callable[[str], None]) -> Iterator[tuple[int, Trade]]:
        """Each trade with its place from 0, as the offset it would get in an empty topic of one partition.

        Each call reads the files anew. What cannot be read is left out, and `on_note` is told so once a recording.
        """
        offset = 0
        readers = {venue: RecordingReader(venue) for venue, _ in self._recordings}
        file_readers: dict[str, TradeFileReader] = {}
        for venue, path in sorted(self._recordings, key=lambda recording: list(readers).index(recording[0])):
            unread, first_unread, what = 0, "", "frame"
            try:
                if is_trade_file(path):
                    what = "row"
                    parts = _rows(path, file_readers.setdefault(venue, TradeFileReader(venue)))
                else:
                    parts = _frames(path, readers[venue])
                for trades, bad, where in parts:
                    unread, first_unread = unread + bad, first_unread or where
                    for trade in trades:
                        yield offset, trade
                        offset += 1
            except RecordingError as error:
                on_note(str(error))
            if unread:
                on_note(f"{counted(unread, what)} of {path} cannot be read as {venue}, the first in {first_unread}")
        for reader in readers.values():
            self.with_repairs |= reader.with_repairs
            for trade in reader.finish():
                yield offset, trade
                offset += 1


_Part = tuple["Sequence[Trade]", int, str]
"""Trades, how much beside them could not be read, and what the first of that is."""


def _frames(path: Path, reader: RecordingReader) -> Iterator[_Part]:
    for line in read_recording(path):
        parsed, trades = reader.read(line)
        bad = parsed.rejected
        yield trades, bool(bad), f"line {line.number} ({bad[0].reason})" if bad else ""


def _rows(path: Path, reader: TradeFileReader) -> Iterator[_Part]:
    for columns, bad, _ in reader.read(path):
        trades = [] if columns is None else columns.trades()
        yield trades, len(bad), f"{bad[0].place} ({bad[0].reason})" if bad else ""
