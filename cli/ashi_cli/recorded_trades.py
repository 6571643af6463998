"""The trades of recordings, for a simulated venue on which they happen again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashi.contracts.errors import UsageError
from ashi_ingest.recording.format import BadLine, preflight, read_recording
from ashi_ingest.venues.registry import VENUES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ashi.contracts.trade import Trade


def read_trades(venue: str, recordings: Sequence[Path]) -> list[Trade]:
    """All trades of recordings of `venue`, in the order of the files; frames that cannot be read are left out.

    Raises UsageError for a file that is none or has no trade of the venue, RecordingError for a damaged one.
    """
    for path in recordings:
        preflight(path)
    parser = VENUES[venue].parser()
    trades: list[Trade] = []
    for path in recordings:
        for line in read_recording(path):
            if not isinstance(line, BadLine):
                trades += parser.parse(line.frame, line.received_at).trades
    if recordings and not trades:
        named = ", ".join(map(str, recordings))
        raise UsageError(f"{named}: no trade of {venue} is in there; is it a recording of another venue?")
    return trades
