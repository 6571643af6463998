"""Whether `trades` is still the log that the state was built from: by records that it has read, not by its length.

A log is cut by an election that is not clean, or by a restore; a topic is deleted and made anew. New trades then get
offsets that the state has read already. The state remembers fingerprints of some records: the last that was read when
its marker was written, which may be beyond what the marker says, as rows wait; and others before it at growing
distances. They are compared when a partition is taken up, when its leader has changed or the topic's id is another, and
now and then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Final, Protocol

from msgspec.structs import astuple

from ashi.contracts.errors import StateError
from ashi.contracts.topics import TRADES
from ashi.runtime.kafka.cluster.log_identity import (
    Difference,
    Fingerprint,
    ObservedLog,
    Standing,
    differences,
    observe,
    thin_out,
)
from ashi.runtime.kafka.cluster.topic_ids import TopicIdentity
from ashi.runtime.logs import get_logger
from ashi_aggregate.core.codec import Marker

ALL_EVERY_S: Final = 60.0
"""So often the last record read of each partition is looked at, whatever Kafka says of leaders and ids."""
IDENTITY_EVERY_S: Final = 5.0
"""So often Kafka is asked for the topic's id and the leaders: one small request."""

_log = get_logger(__name__)


class Trail:
    """Fingerprints of the records read of one partition, and the id of the topic they were read from."""

    def __init__(self, topic_id: str | None = None, records: Iterable[tuple[int, int, int]] = ()) -> None:
        self.topic_id = topic_id
        self.records = [Fingerprint(*each) for each in records]

    def add(self, fingerprint: Fingerprint) -> None:
        """Remember one more record, and few of all before."""
        if not self.records or fingerprint.offset > self.records[-1].offset:
            self.records = thin_out([*self.records, fingerprint])

    def as_written(self) -> list[tuple[int, int, int]]:
        """As the marker has them."""
        return [(each.offset, each.append_time_ms, each.checksum) for each in self.records]


def witness_of(expected: Fingerprint, epoch: int, topic_id: str | None) -> Marker:
    """What to write down of a record that was read and does not stand any more."""
    return Marker(expected.offset, None, epoch, topic_id, [astuple(expected)])


async def check_markers(kafka: ObservedLog, *told: Mapping[int, Marker]) -> TopicIdentity:
    """Raise StateError unless `trades` is the log that these markers and witnesses tell of; gives what it is now.

    Markers that remember nothing, as earlier versions of Ashi wrote them, are accepted. Raises BrokerError.
    """
    identity = await kafka.identity()
    known: dict[int, list[Fingerprint]] = {}
    for number, marker in chain.from_iterable(each.items() for each in told):
        known.setdefault(number, []).extend(Trail(marker.topic_id, marker.records).records)
    standings = await observe(kafka, known)
    for number, found in differences(known, standings).items():
        raise other_log(number, str(found))
    for number, marker in chain.from_iterable(each.items() for each in told):
        if None in (marker.topic_id, identity.topic_id) or marker.topic_id == identity.topic_id:
            continue
        if number not in standings or not standings[number].found:
            raise other_log(
                number,
                f"its state was read from the topic with id {marker.topic_id}, the topic has id {identity.topic_id} "
                "now, and of the records that were read none is there to compare",
            )
        _log.warning("trades was made anew with the same records", partition=number, topic_id=identity.topic_id)
    return identity


class LogReader(Protocol):
    """What is needed of a partition that is read: where it goes on, and some of the records that it has read."""

    next: int

    def records_read(self) -> list[Fingerprint]:
        """The last one last."""


class LogWatch:
    """Looks again and again whether `trades` is still the log that was read, as cheaply as it can."""

    def __init__(self) -> None:
        self.identity = TopicIdentity(None, {})
        self._next_before: dict[int, int] = {}

    async def look(
        self, kafka: ObservedLog, readers: Mapping[int, LogReader], *, everything: bool
    ) -> dict[int, Difference | StateError]:
        """What is wrong, by partition: a record that does not stand any more, or that what comes next has expired.

        All that is remembered of a partition is compared when the topic's id or its leader has changed; `everything`
        compares at least the last record read of each. Raises BrokerError when Kafka does not say.
        """
        identity = await kafka.identity()
        epochs, before = identity.leader_epochs, self.identity.leader_epochs
        is_another = identity.topic_id != self.identity.topic_id
        chosen = {number for number in readers if is_another or epochs.get(number) != before.get(number)}
        known = {number: readers[number].records_read() for number in chosen}
        if everything:
            known |= {number: each.records_read()[-1:] for number, each in readers.items() if number not in chosen}
        standings = await observe(kafka, known)
        found: dict[int, Difference | StateError] = {**differences(known, standings)}
        if not found:
            self.identity = identity
        if everything:
            found = {**self._expired(readers, standings), **found}
        return found

    def _expired(self, readers: Mapping[int, LogReader], standings: Mapping[int, Standing]) -> dict[int, StateError]:
        """Where the log has lost what is to be read next. The next record would tell, if one comes.

        Unless something was folded since the last look: then it may be on its way already.
        """
        before, self._next_before = self._next_before, {number: each.next for number, each in readers.items()}
        unmoved = {number: at for number, at in self._next_before.items() if before.get(number) == at}
        return {
            number: expired_unread(number, unmoved[number], standing.begin)
            for number, standing in standings.items()
            if number in unmoved and unmoved[number] < standing.begin
        }


def expired_unread(number: int, begin: int, earliest: int) -> StateError:
    """The error for a partition whose log has lost what was to be read from `begin` on."""
    return StateError(
        f"records {begin} to {earliest - 1} of {TRADES}/{number} expired before they were aggregated: candles of that "
        "time would be wrong. Lengthen the topic's retention.ms, stop all aggregate workers and begin a new state at "
        "what is left with `ashi aggregate reconfigure`"
    )


def other_log(number: int, found: str) -> StateError:
    """The error for a partition whose log is not the one that was read; `found` says what was expected and found."""
    return StateError(
        f"{TRADES}/{number} is not the log that its state has read: {found}. The topic was made anew or restored, or "
        "its log was cut in an election that was not clean, so that trades have the offsets of others that were read. "
        "Stop all aggregate workers, then begin a new state at the head of the log with `ashi aggregate reconfigure`, "
        "or with `--from` at a time since when it is whole; `ashi verify` finds what was stored meanwhile that is wrong"
    )
