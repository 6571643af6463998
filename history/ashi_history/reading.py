"""The trades of one symbol out of a file, a batch at a time: of a recording of frames, or a file of trades."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import RecordingError
from ashi.runtime.words import counted
from ashi_ingest.recording.format import read_recording
from ashi_ingest.recording.reader import RecordingReader
from ashi_ingest.recording.trade_files import TradeFileReader, is_trade_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ashi.contracts.trade import Trade

BATCH: Final = 5_000


class FileReader:
    """Reads one file, once.

    Attributes:
        symbols: those that it has trades of, as far as it was read.
        notes: what could not be read, a sentence each; whole at the end.
        unread: between which trades (`traded_at`, µs) something could not be read that may have been trades of the
            symbol; 0 where that is before the first one, and None where it is after the last.

    """

    def __init__(self, path: Path, symbol: str, on_read: Callable[[int], None] = lambda _: None) -> None:
        """`path`: a file that `ashi_ingest.recording.check` lets pass. `on_read` gets how many bytes have been read."""
        self.symbols: set[str] = set()
        self.notes: list[str] = []
        self.unread: list[tuple[int, int | None]] = []
        self._reached = 0
        self._path = path
        self._on_read = on_read
        self._symbol = symbol
        self._venue = symbol.partition(":")[0]
        self._unread, self._first_unread = 0, ""

    def batches(self) -> Iterator[list[Trade]]:
        """The trades of the symbol, as they stand in the file; some of them may be there twice."""
        if is_trade_file(self._path):
            yield from self._rows()
        else:
            yield from self._frames()

    def _rows(self) -> Iterator[list[Trade]]:
        try:
            for columns, bad, _ in TradeFileReader(self._venue).read(self._path, self._on_read):
                trades = [] if columns is None else self._of_symbol(columns.trades())
                given = 0
                for row in bad:
                    self._reach(trades[given : row.after])
                    given = row.after
                    self._note_unread(row.place, row.reason)
                self._reach(trades[given:])
                if trades:
                    yield trades
        except RecordingError as error:
            self._note_end(error)
        self._tell_unread("row")

    def _frames(self) -> Iterator[list[Trade]]:
        reader = RecordingReader(self._venue)
        batch: list[Trade] = []
        try:
            for line in read_recording(self._path, self._on_read):
                parsed, trades = reader.read(line)
                if parsed.rejected:
                    symbols = {rejected.symbol or self._symbol for rejected in parsed.rejected}
                    self._note_unread(
                        f"line {line.number}", parsed.rejected[0].reason, may_be_of_symbol=self._symbol in symbols
                    )
                if trades:
                    found = self._of_symbol(trades)
                    self._reach(found)
                    batch += found
                if len(batch) >= BATCH:
                    yield batch
                    batch = []
        except RecordingError as error:
            self._note_end(error)
        batch += self._of_symbol(reader.finish())
        if batch:
            yield batch
        self._tell_unread("frame")

    def _reach(self, trades: Sequence[Trade]) -> None:
        """These trades were read next."""
        if not trades:
            return
        if self.unread and self.unread[-1][1] is None:
            self.unread[-1] = self.unread[-1][0], trades[0].traded_at
        self._reached = trades[-1].traded_at

    def _note_hole(self) -> None:
        if not self.unread or self.unread[-1][1] is not None:
            self.unread.append((self._reached, None))

    def _note_end(self, error: RecordingError) -> None:
        self.notes.append(str(error))
        self._note_hole()

    def _note_unread(self, place: str, reason: str, *, may_be_of_symbol: bool = True) -> None:
        if may_be_of_symbol:
            self._note_hole()
        self._unread += 1
        self._first_unread = self._first_unread or f"{place} ({reason})"

    def _tell_unread(self, what: str) -> None:
        if self._unread:
            self.notes.append(
                f"{counted(self._unread, what)} of {self._path} cannot be read as {self._venue}, "
                f"the first in {self._first_unread}"
            )

    def _of_symbol(self, trades: list[Trade]) -> list[Trade]:
        self.symbols.update(trade.symbol for trade in trades)
        return [trade for trade in trades if trade.symbol == self._symbol]
