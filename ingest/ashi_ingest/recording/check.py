"""What is looked at in a recording before anything is started: that it is one, of the venue that is named."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import RecordingError, UsageError
from ashi_ingest.recording.format import Line, preflight, read_recording
from ashi_ingest.recording.own_lines import PREFIX
from ashi_ingest.recording.reader import RecordingReader
from ashi_ingest.recording.trade_files import NO_OPTIONS, FileOptions, check_trade_file, is_trade_file
from ashi_ingest.venues.registry import VENUES

if TYPE_CHECKING:
    from pathlib import Path

    from ashi.contracts.trade import Trade

UNREADABLE_LINES: Final = 100
"""When none of so many lines at the beginning can be read as the venue's, other venues are tried, on as many."""


def check_recording(venue: str, path: Path, options: FileOptions = NO_OPTIONS) -> None:
    """Refuse a recording that would bring nothing, or something else than it seems, and say what to do.

    It is read up to the first trade: the whole of it only where there is none, which may be in order. `options` are for
    files of trades.

    Raises:
        UsageError: see `preflight` and `check_trade_file`; or it is of another venue, its markets are in lower case, or
            what its frames tell of trades are only sums of several.

    """
    if is_trade_file(path):
        check_trade_file(venue, path, options)
        return
    if options.columns or options.market is not None:
        raise UsageError(f"{path} is a recording of frames, which tell their markets: leave out --market and --columns")
    preflight(path)
    reader = RecordingReader(venue)
    unreadable, doubt = 0, ""
    try:
        for line in read_recording(path):
            parsed = reader.read(line).parsed
            found = _doubt(venue, line)
            if parsed.trades:
                if found:
                    raise UsageError(f"{path} is not a recording of {venue}: {found}")
                _check_case(venue, path, line.number, parsed.trades[0])
                return
            doubt = doubt or found
            unreadable += bool(parsed.rejected)
            if unreadable == UNREADABLE_LINES:
                break
    except RecordingError:
        pass  # whoever reads on tells of it, and takes what stands before
    others = [other for other in VENUES if other != venue and _has_trades(other, path)]
    if others:
        raise UsageError(f"{path} is not a recording of {venue} but of {' or '.join(others)}: name that venue")
    if doubt:
        raise UsageError(f"{path} has no trades: {doubt}")


def _doubt(venue: str, line: object) -> str:
    """What speaks against a line's being one of this venue's single trades, if its frame tells."""
    explain = VENUES[venue].doubt
    if explain is None or not isinstance(line, Line) or line.frame.startswith(PREFIX):
        return ""
    reason = explain(line.frame)
    return "" if reason is None else f"in line {line.number} {reason}"


def _check_case(venue: str, path: Path, number: int, trade: Trade) -> None:
    market = trade.symbol.partition(":")[2]
    as_sent = market.encode().upper().decode()  # ASCII only: names in other scripts stay as they are
    if market != as_sent:
        raise UsageError(
            f"{path}, line {number}: market {market!r} is in lower case, and {VENUES[venue].title} sends {as_sent!r}: "
            "the recording was altered. Write its markets as the venue does, else they would be other ones"
        )


def _has_trades(venue: str, path: Path) -> bool:
    reader = RecordingReader(venue)
    try:
        return any(reader.read(line).parsed.trades for line in islice(read_recording(path), UNREADABLE_LINES))
    except RecordingError:
        return False
