"""The trades of a recording, in the order of the feed that was recorded: what waited for a repair stands after it.

Pure: lines in, trades out. Whoever reads recordings does it by this, each line once and in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ashi_ingest.recording.format import BadLine, parse_lines
from ashi_ingest.recording.own_lines import PREFIX, read_own_line
from ashi_ingest.venues.parsing import BAD_FRAME, ColumnParser, Parsed, Rejected, reject
from ashi_ingest.venues.registry import VENUES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.contracts.trade import Trade
    from ashi_ingest.recording.format import Line
    from ashi_ingest.recording.own_lines import OwnLine
    from ashi_ingest.venues.parsing import FrameParser
    from ashi_ingest.venues.trade_columns import ReceivedColumns

MAX_WAITING: Final = 200_000
"""Trades of one symbol that wait. A feed holds less (`ASHI_FEED_BUFFER`): with more, the end was not recorded."""
CONNECTIONS: Final = 256
"""So many are told apart, the latest."""


class Reading(NamedTuple):
    """What one line gave.

    Attributes:
        parsed: what the line itself holds.
        trades: those that are to be published now. They may have stood in lines before, and this line's may wait.

    """

    parsed: Parsed
    trades: list[Trade]


class RecordingReader:
    """Reads the recordings of one venue one after the other, as one feed that was written in pieces.

    Attributes:
        venue: as it begins its symbols.
        with_repairs: the symbols of which the recordings hold what REST brought, too.

    """

    def __init__(self, venue: str) -> None:
        """Raises KeyError for a venue that is not known."""
        self.venue = venue
        self.with_repairs: set[str] = set()
        self._make_parser = VENUES[venue].parser
        self._parser = self._make_parser()
        self._parsers: dict[str, FrameParser] = {}
        self._waiting: dict[str, dict[str, Trade]] = {}

    def read(self, line: Line | BadLine) -> Reading:
        """Read the next line. Never raises; what cannot be read is in `Reading.parsed`."""
        if isinstance(line, BadLine):
            return Reading(Parsed(rejected=[Rejected(line.line, line.reason)]), [])
        if line.frame.startswith(PREFIX):
            try:
                return self._follow(read_own_line(line.frame, self.venue))
            except BAD_FRAME as error:
                return Reading(Parsed(rejected=[reject(line.frame, error)]), [])
        parsed = self._parser.parse(line.frame, line.received_at)
        if not self._waiting:
            return Reading(parsed, parsed.trades)
        return Reading(parsed, [passed for trade in parsed.trades for passed in self._pass(trade)])

    def read_columns(self, texts: Sequence[bytes]) -> ReceivedColumns | None:
        """The next lines as they stand, if each is a frame of one trade, and none waits: as `read` would pass them on.

        None: nothing has been read, take them one by one.
        """
        if self._waiting or not isinstance(self._parser, ColumnParser):
            return None
        lines = parse_lines(texts)
        return None if lines is None else self._parser.parse_columns(lines[1], lines[0])

    def finish(self) -> list[Trade]:
        """No line follows: what waits for a repair whose end was not recorded."""
        return [trade for symbol in list(self._waiting) for trade in self._release(symbol)]

    def _pass(self, trade: Trade) -> list[Trade]:
        waiting = self._waiting.get(trade.symbol)
        if waiting is None:
            return [trade]
        waiting[trade.trade_id] = trade
        return self._release(trade.symbol) if len(waiting) > MAX_WAITING else []

    def _release(self, symbol: str) -> list[Trade]:
        return list(self._waiting.pop(symbol, {}).values())

    def _follow(self, line: OwnLine) -> Reading:
        for trade in line.repaired:
            self._waiting.get(trade.symbol, {}).pop(trade.trade_id, None)
        if line.connection is not None:
            # Where a venue gives no ids, equal executions are counted: each over each connection by itself.
            self._parser = self._parsers.setdefault(line.connection, self._make_parser())
            if len(self._parsers) > CONNECTIONS:
                del self._parsers[next(iter(self._parsers))]
        if line.waits is not None:
            self.with_repairs.add(line.waits)
            self._waiting.setdefault(line.waits, {})
        passed = [] if line.passes is None else self._release(line.passes)
        return Reading(Parsed(line.repaired), line.repaired + passed)
