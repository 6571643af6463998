"""The trades of recordings, for a simulated venue on which they happen again."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING

import msgspec

from ashi.contracts.errors import UsageError
from ashi_ingest.recording.check import check_recording
from ashi_ingest.recording.format import Line, read_recording
from ashi_ingest.recording.own_lines import PREFIX
from ashi_ingest.recording.reader import RecordingReader
from ashi_ingest.recording.trade_files import TradeFileReader, is_trade_file
from ashi_ingest.venues.registry import VENUES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ashi.contracts.trade import Trade


def read_trades(venue: str, recordings: Sequence[Path]) -> list[Trade]:
    """All trades of recordings of `venue`, each once, in the order of the files; what cannot be read is left out.

    What REST brought stands where it happened, as a simulated venue has lost nothing.

    Raises UsageError for a file that is none or has no trade of the venue, RecordingError for a damaged one.
    """
    for path in recordings:
        check_recording(venue, path)
    reader = RecordingReader(venue)
    came: dict[tuple[str, str], Trade] = {}
    fetched: dict[tuple[str, str], Trade] = {}
    file_reader: TradeFileReader | None = None
    for path in recordings:
        if is_trade_file(path):
            file_reader = file_reader or TradeFileReader(venue)
            for batch in file_reader.read(path):
                trades = [] if batch.columns is None else batch.columns.trades()
                came.update({(trade.symbol, trade.trade_id): trade for trade in trades})
            continue
        for line in read_recording(path):
            trades = reader.read(line).parsed.trades
            is_fetched = isinstance(line, Line) and line.frame.startswith(PREFIX)
            (fetched if is_fetched else came).update({(trade.symbol, trade.trade_id): trade for trade in trades})
    if recordings and not came and not fetched:
        named = ", ".join(map(str, recordings))
        raise UsageError(f"{named}: no trade of {venue} is in there, so there is nothing to replay")
    missed = [trade for key, trade in fetched.items() if key not in came]
    return _merged(came.values(), missed, ordered_ids=VENUES[venue].live(has_key=True).ordered_ids)


def _merged(came: Iterable[Trade], missed: Iterable[Trade], *, ordered_ids: bool) -> list[Trade]:
    """Each symbol's missed trades before the first later one that came. They came in no frame: each is its own."""

    def age(trade: Trade) -> tuple[int, int]:
        return (0 if ordered_ids else trade.traded_at, trade.sequence)

    waiting: dict[str, deque[Trade]] = defaultdict(deque)
    for trade in sorted(missed, key=age):
        waiting[trade.symbol].append(msgspec.structs.replace(trade, received_at=trade.traded_at))
    merged: list[Trade] = []
    for trade in came:
        before = waiting[trade.symbol]
        while before and age(before[0]) < age(trade):
            merged.append(before.popleft())
        merged.append(trade)
    return merged + [trade for rest in waiting.values() for trade in rest]
