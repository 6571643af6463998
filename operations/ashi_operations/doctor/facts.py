"""What the doctor has found out, before it is judged. A fact that could not be found out holds the reason instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Fact(Generic[_T]):
    """Something that was asked.

    Attributes:
        value: the answer; None where there is none.
        why: why there is no answer; None where there is one, or where it was not to be asked at all.
        skipped: why it was not asked.

    """

    value: _T | None = None
    why: str | None = None
    skipped: str | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """Whether a broker can be reached; `given`: in ASHI_KAFKA_BOOTSTRAP, else Kafka sends us there."""

    address: str
    given: bool
    trouble: str | None


@dataclass(frozen=True, slots=True)
class ShownCertificate:
    """A certificate; `of`: the address that showed it, or the setting that names its file."""

    of: str
    subject: str
    not_after: int


@dataclass(frozen=True, slots=True)
class Certificates:
    """Those that are good, and why others are not, by whom they are of."""

    good: Sequence[ShownCertificate]
    refused: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Partitions:
    """`topic/number` of those that nobody leads, and of those of which a copy is behind."""

    leaderless: Sequence[str]
    under_replicated: Sequence[str]
    total: int


@dataclass(frozen=True, slots=True)
class Right:
    """A right that is missing: on a topic, group or transactional-id, by its name in Kafka."""

    kind: str
    name: str
    operation: str


@dataclass(frozen=True, slots=True)
class TopicDifference:
    """How a topic is not as specified, with what to do, and the command."""

    topic: str
    missing: bool
    partitions: bool
    text: str
    command: str


@dataclass(frozen=True, slots=True)
class Topics:
    """Of how many topics what differs; `hidden`: those whose settings this user may not see."""

    total: int
    differences: Sequence[TopicDifference]
    hidden: Sequence[str]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A group in a topic: how long ago what it reads next was appended, s, and how long the topic keeps records, s.

    `specified_s`: for how long it is to keep them, by what `ashi topics create` makes; 0 where nothing says so.
    """

    group: str
    topic: str
    waiting_s: float
    retention_s: float
    specified_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EpochFacts:
    """The state's epoch; `differs`: why a worker with these settings would not start, None if it would."""

    number: int
    settings: str
    differs: str | None


@dataclass(frozen=True, slots=True)
class Clocks:
    """How far clocks are ahead of the brokers', s.

    Attributes:
        here: this machine's; None where no record came to tell by.
        ingest: at least so far, those of the machines that ingest workers are on, by venue.

    """

    here: float | None
    ingest: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """A store that could be opened; sizes in bytes, None where they cannot be asked."""

    where: str
    version: int
    latest: int
    lacking: Sequence[str]
    free: int | None
    total: int | None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was asked. Times are µs.

    Attributes:
        now: when.
        bootstrap: ASHI_KAFKA_BOOTSTRAP.
        prefix: ASHI_TOPIC_PREFIX.
        user: as whom Kafka knows us, for people; `principal` for `kafka-acls`.
        login: None: we are let in; `why` else.
        versions: of each request the least and the greatest version that the brokers know.
        rights: of each command what this user lacks; `chosen`: those that he is meant to run.
        problems: what the status finds, as (level, code, about, text, command): groups and feeds.
        store: of the store that is named, whose URL is shown in commands as `store_url`, its kind as `store_kind`.

    """

    now: int
    bootstrap: str
    prefix: str
    user: str
    principal: str
    addresses: Fact[Sequence[Address]]
    certificates: Fact[Certificates]
    login: Fact[bool]
    versions: Fact[Mapping[int, tuple[int, int]]]
    partitions: Fact[Partitions]
    rights: Fact[Mapping[str, Sequence[Right]]]
    chosen: Sequence[str]
    topics: Fact[Topics]
    retention: Fact[Sequence[Waiting]]
    epoch: Fact[EpochFacts]
    groups: Fact[Sequence[tuple[str, str, str, str, str]]]
    feeds: Fact[Sequence[tuple[str, str, str, str, str]]]
    clocks: Fact[Clocks]
    store: Fact[StoreFacts]
    store_kind: str = ""
    store_url: str = ""
