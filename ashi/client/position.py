"""How far a topic has been read: to be stored by whoever reads it, and to go on from."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from ashi.contracts.errors import ContractError, UsageError
from ashi.runtime.kafka.cluster.log_identity import Fingerprint
from ashi.runtime.kafka.consuming.follow import ReadTo

if TYPE_CHECKING:
    from ashi.runtime.kafka.consuming.follow import Start


class Position(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a topic has been read, and which topic that was.

    Attributes:
        topic: its name.
        offsets: the offset of the next record of each partition.
        last_read: the record before it, as far as one is known: its offset, time of append (ms) and CRC-32. It must
            still stand there when reading goes on; a position of an earlier version has none and is taken as it is.
        topic_id: the topic's id; None where the broker knows of none.

    """

    topic: str
    offsets: dict[int, int]
    last_read: dict[int, Fingerprint] = {}
    topic_id: str | None = None

    def to_json(self) -> str:
        """As text, to be stored: `{"topic":"candles","offsets":{"0":1789},"last_read":{"0":[1788,…]},"topic_id":…}`."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Position:
        """Read what `to_json` wrote. Raises ContractError that says what is wrong."""
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise ContractError(f"not a position: {error}; store the text of Position.to_json") from None


Since: TypeAlias = Literal["beginning", "now"] | datetime | int | Position
"""Where to begin: with the first record that Kafka keeps; with what comes from now on; with what was written to the
topic at or after a time (one with a time zone, or µs since the epoch); or where a reader was."""


def start_of(since: Since, topic: str) -> Start:
    """`since` in Kafka's terms. Raises UsageError when it is a time without a zone or the position of another topic."""
    match since:
        case "beginning":
            return "beginning"
        case "now":
            return "end"
        case datetime():
            if since.utcoffset() is None:
                raise UsageError(f"since {since} has no time zone: write datetime(..., tzinfo=UTC)")
            return int(since.timestamp() * 1_000)
        case Position():
            if since.topic != topic:
                raise UsageError(f"since is a position in topic {since.topic}, but {topic} is to be read")
            return ReadTo(since.offsets, since.last_read, since.topic_id)
        case int():
            return since // 1_000
        case _:
            raise UsageError(f"since {since!r} is not a place to begin: write 'beginning', 'now', a time or a Position")
