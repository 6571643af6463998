"""What each stage does with which topic and group: the one table of rights, to be granted and to be checked.

A right is needed as it stands here: without any one of them the stage does not start, and none is too many. Kafka lets
whoever may read or write a topic describe it, and a producer be idempotent that may write to any topic.

`deployed_principals` has the same by user, as a deployment grants them: the users of Kafka, their access control lists
and docs/access.md are made of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from ashi.contracts.topics import (
    AGGREGATE_APP,
    CANDLES,
    CANDLES_DEAD,
    CANDLES_LIVE,
    FEED_GAPS,
    FEED_STATUS,
    INSTRUMENTS,
    META,
    SIGNALS,
    TRADES,
    TRADES_DEAD,
    TRADES_LATE,
    state_topics,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ashi.contracts.timeframe import Timeframe


class Operation(Enum):
    """An operation of Kafka's access control lists; the value is its code in the protocol (AclOperation)."""

    READ = 3
    WRITE = 4
    CREATE = 5
    ALTER = 7
    DESCRIBE = 8
    DESCRIBE_CONFIGS = 10

    def __str__(self) -> str:
        """As `kafka-acls --operation` has it: `DescribeConfigs`."""
        return self.name.title().replace("_", "")


@dataclass(frozen=True, slots=True)
class Access:
    """What one stage must be permitted.

    Attributes:
        topics: the operations on each topic that it uses.
        group: the consumer group that it must be permitted to Read; None if it is in none.
        transactional_id: the id that it must be permitted to Write under; None if it writes no transactions.

    """

    topics: Mapping[str, frozenset[Operation]] = field(default_factory=dict)
    group: str | None = None
    transactional_id: str | None = None

    def in_kafka(self, prefix: str) -> Access:
        """The same, by the names that topics and group have in Kafka where `ASHI_TOPIC_PREFIX` is `prefix`."""
        topics = {prefix + topic: operations for topic, operations in self.topics.items()}
        others = (None if name is None else prefix + name for name in (self.group, self.transactional_id))
        return Access(topics, *others)

    def rights(self) -> Iterator[tuple[str, str, Operation]]:
        """Each right by itself: `topic`, `group` or `transactional_id`, the name, the operation."""
        for topic, operations in self.topics.items():
            for operation in sorted(operations, key=lambda each: each.value):
                yield "topic", topic, operation
        if self.group is not None:
            yield "group", self.group, Operation.READ
        if self.transactional_id is not None:
            yield "transactional_id", self.transactional_id, Operation.WRITE


_READ: Final = frozenset({Operation.READ})
_WRITE: Final = frozenset({Operation.WRITE})
_BOTH: Final = _READ | _WRITE

REPLAY: Final = Access({TRADES: _WRITE, TRADES_DEAD: _WRITE})
"""`ashi ingest replay`."""
INGEST: Final = Access({TRADES: _BOTH, TRADES_DEAD: _WRITE, FEED_STATUS: _BOTH, FEED_GAPS: _BOTH, INSTRUMENTS: _BOTH})
"""`ashi ingest VENUE`: what it reads is where it, or another worker, was before."""


def aggregate_access(timeframes: Sequence[Timeframe], *, quiet_close: bool = True, live: bool = True) -> Access:
    """Of `ashi aggregate`. Where windows of quiet markets close by Kafka's clock, it looks that `trades` takes that.

    `live`: it sends candles in progress.
    """
    return Access(
        {
            TRADES: _READ | ({Operation.DESCRIBE_CONFIGS} if quiet_close else set()),
            META: _BOTH,
            CANDLES: _WRITE,
            **({CANDLES_LIVE: _WRITE} if live else {}),
            TRADES_LATE: _WRITE,
            TRADES_DEAD: _WRITE,
            FEED_GAPS: _WRITE,
            **dict.fromkeys(state_topics(timeframes), _BOTH),
        },
        AGGREGATE_APP,
    )


def sink_access(topics: Sequence[str], dead_topic: str, group: str) -> Access:
    """Of `ashi sink`: reads its topics in its group, and writes what cannot be stored to `dead_topic`."""
    return Access({**dict.fromkeys(topics, _READ), dead_topic: _WRITE}, group)


def strategy_access(instance: str) -> Access:
    """Of `ashi strategy run`: candles and what feeds say, its own signals; `instance` is what Kafka knows it by."""
    topics = {CANDLES: _READ, FEED_GAPS: _READ, FEED_STATUS: _READ, SIGNALS: _BOTH}
    return Access(topics, instance, instance)


CHART: Final = Access(dict.fromkeys([CANDLES, CANDLES_LIVE, FEED_GAPS, FEED_STATUS, INSTRUMENTS, SIGNALS], _READ))
"""`ashi chart`: reads what there is to be seen, in no group, and writes nothing."""


def access_table(timeframes: Sequence[Timeframe], prefix: str = "") -> dict[str, Access]:
    """All stages, by the command that runs each, with the groups that they have unless set otherwise.

    With `prefix`, that of `ASHI_TOPIC_PREFIX`, topics and groups have the names that they have in Kafka.
    """
    table = {
        "ashi ingest replay": REPLAY,
        "ashi ingest": INGEST,
        "ashi aggregate": aggregate_access(timeframes),
        "ashi sink": sink_access([CANDLES, FEED_GAPS, FEED_STATUS], CANDLES_DEAD, "ashi-sink-*"),
        "ashi sink --topic trades": sink_access([TRADES], TRADES_DEAD, "ashi-sink-*"),
        "ashi strategy run": strategy_access("ashi-strategy-*"),
        "ashi chart": CHART,
        "ashi.client": Access(
            dict.fromkeys([CANDLES, CANDLES_LIVE, FEED_GAPS, FEED_STATUS, INSTRUMENTS, SIGNALS], _READ)
        ),
    }
    return {command: access.in_kafka(prefix) for command, access in table.items()}


@dataclass(frozen=True, slots=True)
class Grant:
    """Operations that a user is permitted on one topic, group or transactional id, or on all whose names begin so.

    Attributes:
        kind: `topic`, `group` or `transactional_id`.
        name: its name in Kafka; with `prefixed` that with which the names begin.
        operations: in the order of their codes.

    """

    kind: str
    name: str
    operations: tuple[Operation, ...]
    prefixed: bool = False


@dataclass(frozen=True, slots=True)
class Principal:
    """A user of Kafka in a deployment.

    Attributes:
        name: what it logs in as.
        runs: the commands that run as this user.
        grants: all that it may do.

    """

    name: str
    runs: tuple[str, ...]
    grants: tuple[Grant, ...]


_CREATES: Final = frozenset({Operation.CREATE, Operation.ALTER, Operation.DESCRIBE_CONFIGS})
_STATE: Final = f"{AGGREGATE_APP}-*"
"""The changelogs of whatever timeframes: rights on them need not change with `ASHI_TIMEFRAMES`."""
_CANDLE_TOPICS: Final = (CANDLES, FEED_GAPS, FEED_STATUS)


def _operator() -> Access:
    """Whoever makes the topics, looks at everything, and has candles made anew or trades put back."""
    read = (CANDLES_LIVE, TRADES_LATE, TRADES_DEAD, CANDLES_DEAD, INSTRUMENTS, SIGNALS, _STATE)
    written = (TRADES, CANDLES, FEED_STATUS, FEED_GAPS, META)
    return Access(dict.fromkeys(read, _READ | _CREATES) | dict.fromkeys(written, _BOTH | _CREATES))


def deployed_principals(prefix: str = "") -> tuple[Principal, ...]:
    """The users of a deployment, one for each stage and for each kind of store, and what each may do.

    With `prefix`, that of `ASHI_TOPIC_PREFIX`, topics and groups have the names that they have in Kafka. Why no finer:
    docs/decisions/0014-a-user-for-each-stage.md.
    """
    aggregate = aggregate_access(())
    state = {topic: operations for topic, operations in aggregate.topics.items() if topic not in state_topics(())}
    looks = (Grant("group", "ashi-", (Operation.DESCRIBE,), prefixed=True),)
    principals = (
        _principal("ashi-ingest", INGEST, "ashi ingest VENUE", "ashi ingest backfill", "ashi ingest replay"),
        _principal("ashi-aggregate", Access({**state, _STATE: _BOTH}, AGGREGATE_APP), "ashi aggregate"),
        _principal(
            "ashi-sink-postgres", sink_access(_CANDLE_TOPICS, CANDLES_DEAD, "ashi-sink-postgres"), "ashi sink postgres"
        ),
        _principal("ashi-sink-lake", sink_access(_CANDLE_TOPICS, CANDLES_DEAD, "ashi-sink-lake"), "ashi sink lake"),
        _principal(
            "ashi-sink-lake-trades",
            sink_access([TRADES], TRADES_DEAD, "ashi-sink-lake-trades"),
            "ashi sink lake --topic trades",
        ),
        _principal("ashi-strategy", strategy_access("ashi-strategy-*"), "ashi strategy run"),
        _principal("ashi-chart", CHART, "ashi chart"),
        _principal("ashi-reader", access_table(())["ashi.client"], "programs of other teams, by ashi.client"),
        _principal(
            "ashi-operator",
            _operator(),
            "ashi topics",
            "ashi status",
            "ashi doctor",
            "ashi aggregate reconfigure",
            "ashi verify",
            "ashi rebuild",
            "ashi history export",
            "ashi history import",
            "ashi history load",
            "ashi lake publish",
            more=looks,
        ),
    )
    return tuple(
        replace(user, grants=tuple(replace(grant, name=prefix + grant.name) for grant in user.grants))
        for user in principals
    )


def _principal(name: str, access: Access, *runs: str, more: tuple[Grant, ...] = ()) -> Principal:
    operations: dict[tuple[str, str], list[Operation]] = {}
    for kind, resource, operation in access.rights():
        operations.setdefault((kind, resource), []).append(operation)
    grants = tuple(
        Grant(kind, resource.removesuffix("*"), tuple(permitted), prefixed=resource.endswith("*"))
        for (kind, resource), permitted in operations.items()
    )
    return Principal(name, runs, grants + more)
