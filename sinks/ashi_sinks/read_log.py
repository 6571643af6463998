"""Which log a group has read: a note beside each offset it commits, compared with what stands in the topic.

An offset says how far, and means nothing once a log was cut (an election that was not clean, a restore) or a topic made
anew. So with it goes the fingerprint of the last record before it, which must still stand in its place when a partition
is taken over, and before anything further is committed. While records come that is looked up once a second for each
partition; elections, restores and a process that is frozen take longer, so when none came for a second the last one
that was read must stand too, committed or not. As nothing is committed after a difference, every start finds it again
until somebody has decided.

Kafka forgets what was committed when a topic is deleted. Somebody has decided that: what is read then begins at the
beginning of the new one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from ashi.contracts.errors import StateError
from ashi.contracts.topics import COMPACTED
from ashi.runtime.kafka.cluster.log_identity import Fingerprint, difference, fingerprint_of, observe
from ashi.runtime.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from ashi.runtime.kafka.cluster.log_identity import ObservedLog, Standing
    from ashi.runtime.kafka.cluster.offsets import Committed
    from ashi.runtime.kafka.consuming.spans import Span

LOOK_EVERY_S: Final = 1.0
"""So long what was read of a partition is trusted to stand after a look; each look is a fetch, some 10 ms."""

_log = get_logger(__name__)


class Partition(Protocol):
    """A partition, as the client library names it."""

    @property
    def topic(self) -> str:
        """The topic's name."""

    @property
    def partition(self) -> int:
        """Its number."""


class CommitNote(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which log was read. As JSON some 90 bytes; Kafka keeps up to 4,096 with an offset.

    Attributes:
        last: of the last record before the offset.
        topic_id: of the topic; None where the broker knows of none.

    """

    last: Fingerprint
    topic_id: str | None = None


class Stored(NamedTuple):
    """Up to where a group has committed a partition, and when the last record before was appended, µs; 0: unknown."""

    offset: int
    appended_at: int


class ReadLog:
    """What has been read of the partitions that are held, and whether it still stands."""

    def __init__(
        self,
        group: str,
        remedy: str,
        probe: Callable[[str], ObservedLog],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`remedy`: what to do about another log, for people. `probe`: that of a topic."""
        self._group = group
        self._remedy = remedy
        self._probe = probe
        self._next: dict[Any, int] = {}
        self._fresh: dict[Any, dict[int, Fingerprint]] = {}
        self._noted: dict[Any, CommitNote] = {}
        self._topic_ids: dict[str, str | None] = {}
        self._had: set[Any] = set()
        self._last: dict[Any, tuple[float, Fingerprint]] = {}
        self._suspected: dict[Any, Fingerprint] = {}
        self._looked_s: dict[Any, float] = {}
        self._monotonic_s = monotonic_s
        self.stored: dict[Any, Stored] = {}
        """What the group has committed of the partitions that are held."""

    async def take_over(self, held: Collection[Partition], committed: Mapping[Any, Committed]) -> set[str]:
        """Begin with partitions, each where the group has come to.

        Gives the topics that were made anew under this worker: something was committed, and now there is nothing.
        Raises StateError when the log is not the one that was read, BrokerError when Kafka does not show it.
        """
        now_s = self._monotonic_s()
        notes = {at: decode_note(committed[at].note) for at in held if at in committed}
        for topic, partitions in _by_topic(at for at in held if at in committed).items():
            probe = self._probe(topic)
            self._topic_ids[topic] = (await probe.identity()).topic_id
            asked = {at.partition: [note.last.offset] if (note := notes[at]) else [] for at in partitions}
            standings = await probe.standing(asked)
            for at in partitions:
                self._compare(at, committed[at].offset, notes[at], standings[at.partition])
        anew = {at.topic for at in held if at not in committed and at in self._had}
        self._had = self._had - set(held) | {at for at in held if at in committed}
        self._next = {at: committed[at].offset for at in held if at in committed}
        self._noted = {at: note for at, note in notes.items() if note is not None}
        self.stored = {at: _stored(committed[at].offset, notes[at]) for at in notes}
        self._fresh = {}
        self._last, self._suspected, self._looked_s = {}, {}, dict.fromkeys(held, now_s)
        return anew

    def forget(self) -> None:
        """What comes next comes from the beginning, on purpose."""
        self._next, self._fresh, self._noted, self._last, self._suspected = {}, {}, {}, {}, {}
        self.stored = {}

    async def where_to_go_on(self, at: Partition, span: Span) -> int | None:
        """Where to read on in place of a span that the client has gone back for; None: it is to be taken.

        The client begins anew also where only it has lost its place, as when it stood still while the broker was
        restarted. The log decides: what was read last still stands in it, and it goes on to where that ended. Raises
        BrokerError when Kafka does not show it.
        """
        expected = self._next.get(at)
        if expected is None or span.begin >= expected:
            return None
        known = [self._last[at][1]] if at in self._last else [self._noted[at].last] if at in self._noted else []
        if not known:
            return None
        standing = (await self._probe(at.topic).standing({at.partition: [known[0].offset]}))[at.partition]
        if standing.end < expected or difference(known, standing, compacted=at.topic in COMPACTED) is not None:
            return None
        _log.warning(
            "the client went back to what it had read, reading on where that ended",
            partition=_name(at), first=span.begin, next=expected,
        )  # fmt: skip
        return expected

    def take(self, at: Partition, span: Span) -> None:
        """Take note of what was read. Raises StateError when it stands before what came already."""
        first = span.begin
        expected = self._next.get(at)
        if expected is not None and first < expected:
            raise self._other_log(
                at, f"it ended before offset {expected}, which was to be read next, and begins again at {first}"
            )
        if expected is not None and first > expected:
            _log.warning("records are missing in the topic", partition=_name(at), first=expected, last=first - 1)
        self._next[at] = span.end
        if span.records:
            now_s = self._monotonic_s()
            if at in self._last and now_s - self._last[at][0] >= LOOK_EVERY_S:
                self._suspected.setdefault(at, self._last[at][1])
            self._last[at] = now_s, fingerprint_of(span.records[-1])
        # The last record before the end, which may be of an earlier span.
        if at in self._last:
            self._fresh.setdefault(at, {})[span.end] = self._last[at][1]
        elif at in self._noted:
            self._fresh.setdefault(at, {})[span.end] = self._noted[at].last

    async def check(self, partitions: Iterable[Partition]) -> None:
        """Raise StateError unless the records that were read or committed last still stand; BrokerError as `take_over`.

        Within a second after a look nothing is looked at, unless nothing was read for a second before.
        """
        now_s = self._monotonic_s()
        known: dict[Any, list[Fingerprint]] = {}
        for at in partitions:
            if at in self._suspected or now_s - self._looked_s.get(at, 0.0) >= LOOK_EVERY_S:
                noted = [self._noted[at].last] if at in self._noted else []
                known[at] = [*noted, *([self._suspected[at]] if at in self._suspected else [])]
        for topic, looked_at in _by_topic(at for at, records in known.items() if records).items():
            standings = await observe(self._probe(topic), {at.partition: known[at] for at in looked_at})
            for at in looked_at:
                if (note := self._noted.get(at)) is not None:
                    self._compare(at, note.last.offset + 1, note, standings[at.partition])
                self._compare_records(at, known[at], standings[at.partition])
                self._suspected.pop(at, None)
                self._looked_s[at] = now_s

    async def note(self, at: Partition, offset: int) -> str:
        """What to commit beside `offset`, the end of a span that was taken."""
        last = self._fresh.get(at, {}).get(offset)
        if last is None:
            return ""
        if at.topic not in self._topic_ids:
            self._topic_ids[at.topic] = (await self._probe(at.topic).identity()).topic_id
        return msgspec.json.encode(CommitNote(last, self._topic_ids[at.topic])).decode()

    def committed(self, at: Partition, offset: int) -> None:
        """It is committed up to there."""
        fresh = self._fresh.get(at, {})
        self._had.add(at)
        if offset in fresh:
            self._noted[at] = CommitNote(fresh[offset], self._topic_ids.get(at.topic))
            self._fresh[at] = {place: each for place, each in fresh.items() if place > offset}
        self.stored[at] = _stored(offset, self._noted.get(at))

    def _compare(self, at: Partition, offset: int, note: CommitNote | None, standing: Standing) -> None:
        self._compare_records(at, [] if note is None else [note.last], standing)
        if offset > standing.end:
            raise self._other_log(at, f"it ends at offset {standing.end}, and {offset} was to be read next")
        if note is not None and note.last.offset not in standing.found:  # it has expired, or a newer one replaced it
            now = self._topic_ids.get(at.topic)
            if note.topic_id is not None and now is not None and note.topic_id != now:
                raise self._other_log(at, f"the topic's id was {note.topic_id} and is {now}")
        if offset < standing.begin:
            _log.warning(
                "records expired before they were read", partition=_name(at), first=offset, last=standing.begin - 1
            )

    def _compare_records(self, at: Partition, known: Iterable[Fingerprint], standing: Standing) -> None:
        if (found := difference(known, standing, compacted=at.topic in COMPACTED)) is not None:
            raise self._other_log(at, str(found))

    def _other_log(self, at: Partition, what: str) -> StateError:
        return StateError(
            f"{_name(at)} is not the log any more that group {self._group} has read: {what}. It was cut or made anew, "
            f"so there may be records in it that are not stored. {self._remedy}"
        )


def _stored(offset: int, note: CommitNote | None) -> Stored:
    return Stored(offset, 0 if note is None else note.last.append_time_ms * 1_000)


def decode_note(note: str) -> CommitNote | None:
    """What stands beside an offset that was committed; None where that is of somebody else."""
    try:
        return msgspec.json.decode(note, type=CommitNote)
    except (msgspec.MsgspecError, RecursionError):
        return None  # of an earlier version, or of somebody who set the offset by hand


def _by_topic(partitions: Iterable[Partition]) -> dict[str, list[Partition]]:
    found: dict[str, list[Partition]] = {}
    for at in partitions:
        found.setdefault(at.topic, []).append(at)
    return found


def _name(at: Partition) -> str:
    return f"{at.topic}/{at.partition}"
