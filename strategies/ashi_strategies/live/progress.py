"""How far a strategy has come, as it stands beside the offsets that its group has committed of topic `candles`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ashi.client import Position
from ashi.contracts.topics import CANDLES
from ashi.runtime.kafka.cluster.log_identity import Fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ashi.runtime.kafka.cluster.offsets import Committed


class Progress(msgspec.Struct, frozen=True):
    """What is durable.

    Attributes:
        began: the strategy gives signals of candles that closed after this time, µs.
        done: all signals of candles that closed at this time or before stand in the topic, µs.
        place: where the class stands that has given them, as of `Instance`; None: not said, as before it was noted.

    """

    began: int
    done: int
    place: str | None = None


class _Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """Beside an offset. Another version of Ashi may write more into it, which this one leaves out."""

    began: int
    done: int
    last: Fingerprint | None = None
    topic_id: str | None = None
    place: str | None = None


def committed_places(progress: Progress, position: Position) -> dict[tuple[str, int], tuple[int, str]]:
    """What is to be committed: of each partition the next offset and a note that holds the rest."""
    places = {}
    for number, offset in position.offsets.items():
        note = _Note(progress.began, progress.done, position.last_read.get(number), position.topic_id, progress.place)
        places[CANDLES, number] = offset, msgspec.json.encode(note).decode()
    return places


def read_progress(found: Mapping[int, Committed]) -> tuple[Progress, Position] | None:
    """What was committed; None where nothing was, or not by a strategy.

    Of partitions that were not committed together the earliest time counts.
    """
    notes: dict[int, _Note] = {}
    for number, place in found.items():
        try:
            notes[number] = msgspec.json.decode(place.note, type=_Note)
        except (msgspec.MsgspecError, RecursionError):
            continue  # committed by somebody else, as by kafka-consumer-groups --reset-offsets
    if not notes:
        return None
    progress = Progress(
        min(note.began for note in notes.values()),
        min(note.done for note in notes.values()),
        next((note.place for note in notes.values() if note.place is not None), None),
    )
    last_read = {number: note.last for number, note in notes.items() if note.last is not None}
    topic_id = next(iter(notes.values())).topic_id
    return progress, Position(CANDLES, {number: found[number].offset for number in notes}, last_read, topic_id)
