"""Files of trades, a row each, as venues publish them and their users keep them: CSV in any wrapping, and Parquet.

What a venue's files look like is told by its folder (`VenueDescription.trade_file`). Rows are looked at some thousands
at a time. Where one of them is bad they are looked at one by one, so that each bad one is told with its place.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.errors import ContractError, RecordingError, UsageError
from ashi_ingest.recording import parquet
from ashi_ingest.recording.contents import ZIP_MAGIC, contents_of
from ashi_ingest.recording.format import BYTE_ORDER_MARKS, PREFLIGHT_LINES, Line, preflight_file, read_recording
from ashi_ingest.venues.parsing import symbol_of
from ashi_ingest.venues.registry import VENUES
from ashi_ingest.venues.trade_columns import joined
from ashi_ingest.venues.trade_file import NewestFirstError, RowConverter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ashi_ingest.recording.contents import Block, Content
    from ashi_ingest.venues.trade_columns import TradeColumns
    from ashi_ingest.venues.trade_file import Layout, Numbering, TradeFileFormat

LEAST_COMMAS: Final = 4
"""In the first line of a file of trades."""
_SHOWN: Final = 400
_PACKED: Final = (b"PK\x03\x04", b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
"""What zip, gzip and zstd begin with."""


@dataclass(frozen=True, slots=True)
class FileOptions:
    """What somebody says of files of trades.

    Attributes:
        market: whose they are, by the venue's name; None where the files tell.
        columns: of a field (`FIELDS`), what its column is called in the header.

    """

    market: str | None = None
    columns: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


NO_OPTIONS: Final = FileOptions()
"""The files tell all of it."""


class BadRow(NamedTuple):
    """A row that is no trade.

    Attributes:
        place: where it stands: `path:12`, `path!member:12`.
        row: what it is.
        reason: why it is none.
        after: so many trades of its batch stand before it.

    """

    place: str
    row: bytes
    reason: str
    after: int


class FileBatch(NamedTuple):
    """Some rows of a file in their order. `columns` are the trades, of one market; None where all of them are bad."""

    columns: TradeColumns | None
    bad: Sequence[BadRow]
    rows: int


def is_trade_file(path: Path) -> bool:
    """Whether a file has rows of trades, and is no recording of frames. Raises UsageError if it is no file at all."""
    preflight_file(path)
    try:
        with path.open("rb") as file:
            magic = file.read(len(parquet.MAGIC))
        if magic.startswith(ZIP_MAGIC) or magic == parquet.MAGIC:
            return True
        lines = list(islice(read_recording(path), PREFLIGHT_LINES))
    except (RecordingError, OSError):
        return False  # who reads on tells of it
    if not lines:  # a day without trades; but not where a download has left nothing at all
        return ".csv" in path.suffixes and path.stat().st_size > 0
    if any(isinstance(line, Line) for line in lines) or isinstance(lines[0], Line):
        return False
    first = lines[0].line
    return first.count(b",") >= LEAST_COMMAS and b"{" not in first  # which each frame has


def check_trade_file(venue: str, path: Path, options: FileOptions = NO_OPTIONS) -> None:
    """Refuse a file before anything is begun, and say what to do.

    The first rows of every text in it are looked at.

    Raises:
        UsageError: it is cut, encrypted, of another venue or market, has something else than single trades, or none of
            its first rows can be read; or a library is missing that it needs.

    """
    reader = TradeFileReader(venue, options)
    try:
        for content in reader.contents(path):
            reader.check(content)
    except RecordingError as error:
        raise UsageError(f"{path} cannot be read at all: {error}") from error
    except PermissionError as error:
        raise UsageError(f"{path} may not be read by this user ({error.strerror}): change its permissions") from error


class TradeFileReader:
    """Reads files of one venue one after the other. Where there are no ids, executions are counted over all of them."""

    def __init__(self, venue: str, options: FileOptions = NO_OPTIONS) -> None:
        """Raises UsageError for a venue of which there are no such files."""
        file_format = VENUES[venue].trade_file
        if file_format is None:
            raise UsageError(f"the layout of {venue}'s trade files is not known; replay recordings instead")
        self._venue = venue
        self._format: TradeFileFormat = file_format
        self._options = options
        self._numberings: dict[str, Numbering] = {}

    def read(self, path: Path, on_read: Callable[[int], None] = lambda _: None) -> Iterator[FileBatch]:
        """All rows of a file, in order. `on_read` is told of bytes of the file that have been read since the last call.

        Raises:
            UsageError: see `check_trade_file`.
            RecordingError: it can be read no further. By then everything before that place has been given.

        """
        for content in self.contents(path, on_read):
            yield from self._read(content)

    def contents(self, path: Path, on_read: Callable[[int], None] = lambda _: None) -> Sequence[Content]:
        """The texts in a file. Raises UsageError."""
        if parquet.is_parquet(path):
            return [parquet.as_content(path, self._options.columns, on_read)]
        return contents_of(path, on_read)

    def check(self, content: Content) -> None:
        """Look at the first rows. Raises UsageError, or RecordingError where not even they can be read."""
        bad: list[BadRow] = []
        for batch in self._read(content):
            if batch.columns is not None:
                return
            bad += batch.bad
            if len(bad) >= PREFLIGHT_LINES:
                break
        if bad:
            raise UsageError(
                f"{content.place} has no trades of {self._venue} in its first {len(bad)} rows. {bad[0].place}: "
                f"{bad[0].reason}"
            )

    def _read(self, content: Content) -> Iterator[FileBatch]:
        text: _Text | None = None
        for block in content.blocks():
            if text is None:
                text = self._begin(content, block)
            yield from text.read(block)

    def _begin(self, content: Content, block: Block) -> _Text:
        """By the first row: which column is what, and which market it is."""
        line = next((line for line in block.text.split(b"\n") if line.strip()), b"")
        try:
            layout = self._format.layout(_cells_of(line.rstrip(b"\r")), content.name, self._options.columns)
        except (ContractError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{content.place} is not a file of trades of {self._venue}: {_explained(line, error)}"
            ) from error
        market = self._market(content, block, layout)
        try:
            symbol = symbol_of(self._venue, market)
        except ContractError as error:
            raise UsageError(f"{content.place}: {error}") from error
        numbering = None
        if self._format.numbering is not None:
            numbering = self._numberings.setdefault(market, self._format.numbering())
            numbering.begin()
        return _Text(content.place, layout, RowConverter(symbol, market.encode(), self._format, numbering))

    def _market(self, content: Content, block: Block, layout: Layout) -> str:
        """What is said, what the name tells and what the rows tell must be one. Raises UsageError."""
        by_name = self._format.market_in(content.name) or self._format.market_in(content.archive)
        told = {"--market": self._options.market, "the file's name": by_name}
        if (place := layout.columns.get("market")) is not None:
            rows = [line for line in block.text.split(b"\n") if line.strip()][layout.has_header :]
            told["its first row"] = next((market for row in rows if (market := _cell_of(row, place))), None)
        known = {source: market for source, market in told.items() if market}
        if not known:
            raise UsageError(
                f"{content.place}: its name does not tell which market it is of: name it as the venue does "
                "(docs/trade-files.md), or say so with --market of `ashi ingest replay`"
            )
        if len({*known.values()}) > 1:
            said = ", ".join(f"{source} says {market}" for source, market in known.items())
            raise UsageError(
                f"{content.place} is of another market: {said}. Leave it out, or give each market's files apart"
            )
        market = next(iter(known.values()))
        as_sent = market.encode().upper().decode()  # ASCII only: names in other scripts stay as they are
        if market != as_sent:
            raise UsageError(
                f"{content.place}: market {market!r} is in lower case, and {VENUES[self._venue].title} has "
                f"{as_sent!r}: write it as the venue does, else it would be another one"
            )
        return market


class _Text:
    """The rows of one text, and how far they have been read."""

    def __init__(self, place: str, layout: Layout, converter: RowConverter) -> None:
        self._place = place
        self._layout = layout
        self._converter = converter
        self._number = 0
        self._in_header = layout.has_header

    def read(self, block: Block) -> Iterator[FileBatch]:
        """The trades of a block; none where it has only a header."""
        text, number = block.text.replace(b"\r\n", b"\n"), self._number + 1
        self._number += text.count(b"\n")
        last = b""
        if block.cut:
            text, newline, last = text.rpartition(b"\n")
            text += newline
        elif not text.endswith(b"\n"):
            text += b"\n"
        while self._in_header and text:
            line, _, text = text.partition(b"\n")
            self._in_header, number = not line.strip(), number + 1
        columns, bad = self._convert(text, number)
        good = 0 if columns is None else len(columns)
        if last:
            reason = "the row is not whole: the file is cut off or damaged there; get a complete copy"
            bad.append(self._bad(self._number + 1, last, reason, good))
        if good or bad:
            yield FileBatch(columns, bad, good + len(bad))

    def _convert(self, text: bytes, first_number: int) -> tuple[TradeColumns | None, list[BadRow]]:
        """The trades of whole lines, at once where all of them are good; else those of each line."""
        if not text.strip():
            return None, []
        try:
            return self._converter.convert(self._cells(text)), []
        except NewestFirstError as error:
            raise UsageError(f"{self._place}: {error}") from error
        except ContractError:
            pass
        good: list[TradeColumns] = []
        bad: list[BadRow] = []
        for number, line in enumerate(text.split(b"\n"), first_number):
            if not line.strip():
                continue
            try:
                cells = self._cells_of(line.rstrip(b"\r"))
                good.append(self._converter.convert({name: [cell] for name, cell in cells.items()}))
            except (ContractError, UnicodeDecodeError) as error:
                bad.append(self._bad(number, line, _explained(line, error), len(good)))
        return joined(good) if good else None, bad

    def _cells(self, text: bytes) -> dict[str, list[bytes]]:
        """The cells of lines by field. Raises ContractError where a line has to be looked at by itself."""
        width, last = self._layout.width, self._layout.width - 1
        # Each newline ends a cell. If each of the last column has one, and no other has, each line is of that width.
        cells = text.replace(b"\n", b"\n,").split(b",")
        count = text.count(b"\n")
        if cells.pop() or len(cells) != count * width or b'"' in text:
            raise ContractError("a row has more or fewer columns, or quotes")
        ends = cells[last::width]
        if b"".join(ends).count(b"\n") != count:
            raise ContractError("rows have more or fewer columns")
        columns = {name: cells[place::width] for name, place in self._layout.columns.items() if place != last}
        columns |= {name: [cell[:-1] for cell in ends] for name, place in self._layout.columns.items() if place == last}
        return columns

    def _cells_of(self, line: bytes) -> dict[str, bytes]:
        """The same of one line, without blanks around a cell. Raises ContractError, UnicodeDecodeError."""
        cells = [cell.strip().encode() for cell in _cells_of(line)]
        if len(cells) != self._layout.width:
            raise ContractError(
                f"the row has {len(cells)} columns, and the first one has {self._layout.width}: it is damaged, or of "
                "another file"
            )
        return {name: cells[place] for name, place in self._layout.columns.items()}

    def _bad(self, number: int, line: bytes, reason: str, after: int) -> BadRow:
        return BadRow(f"{self._place}:{number}", line, reason, after)


def _cells_of(line: bytes) -> list[str]:
    """Raises UnicodeDecodeError, and ContractError for what is no row of a table."""
    text = line.decode()
    try:
        return next(csv.reader([text]), [])
    except csv.Error as error:
        reason = f"the row cannot be taken apart into cells: {error}"
        if "\r" in text:
            reason = (
                "there is a carriage return within the row: lines end with \\n or \\r\\n. Where all of them end "
                "with \\r alone, convert the file, with `tr '\\r' '\\n'`"
            )
        raise ContractError(reason) from None


def _cell_of(row: bytes, place: int) -> str | None:
    """One cell; None where the row is bad, which is told when the rows are read."""
    try:
        return next(iter(_cells_of(row.rstrip(b"\r"))[place : place + 1]), None)
    except (ContractError, UnicodeDecodeError):
        return None


def _explained(line: bytes, error: Exception) -> str:
    if line.startswith(_PACKED):
        return "it is a compressed file within a compressed one: unpack the outer one, and name what was in it"
    if line[:2] in BYTE_ORDER_MARKS or b"\0" in line[:8]:
        # Every other byte of ASCII is one in UTF-16; a power cut leaves nothing but them.
        if line[:2] in BYTE_ORDER_MARKS or (line.strip(b"\0") and not (any(line[:8:2]) and any(line[1:8:2]))):
            return "it is in UTF-16: convert it to UTF-8, with `iconv -f UTF-16 -t UTF-8`"
        return "there are NUL bytes: the file is damaged there; get a complete copy"
    if isinstance(error, UnicodeDecodeError):
        return f"the row is not UTF-8: byte {line[error.start]:#04x} at position {error.start}; save the file as UTF-8"
    return str(error)[:_SHOWN]
