"""How a deployment is at one moment. As JSON it is the contract of `ashi status --json`: docs/status.md has its fields.

Only fields are added. What could not be found out is null, and stands with its reason in `unknown`.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from ashi_operations.problem import Problem

SCHEMA: Final = "ashi.status.v1"

FeedKind: TypeAlias = Literal["connected", "silent", "repairing", "down", "stale"]
"""The states of `feed.status`, and `stale`: nothing was heard of the feed for a minute, so its worker has ended or
cannot reach Kafka."""
KINDS: Final[tuple[FeedKind, ...]] = ("down", "stale", "silent", "repairing", "connected")
"""The worse first."""
Stage: TypeAlias = Literal["ingest", "aggregate", "sink", "strategy"]


class Unknown(msgspec.Struct, frozen=True):
    """What cannot be known now, and why."""

    what: str
    reason: str


class Feed(msgspec.Struct, frozen=True):
    """The feed of one symbol. Times are µs.

    Attributes:
        state: `stale` where nothing was heard of it for a minute.
        since: when it came into this state; of a stale one when it was heard last.
        reason: why, or, of a connected one, what is wrong all the same; null when all is well.
        last_traded_at: the time of the last trade published; null: there was none.
        complete_until: all trades before it have been published, but for those in gaps; null: nothing was checked yet.
        workers: how many ingest workers read it now.

    """

    symbol: str
    state: FeedKind
    since: int
    reason: str | None
    last_traded_at: int | None
    complete_until: int | None
    workers: int


class Venue(msgspec.Struct, frozen=True):
    """The feeds of one venue.

    Attributes:
        states: how many symbols are in each state; states without one are left out.
        last_traded_at: of all of them, µs; null: no trade was ever published.
        complete_until: the least of those that are not stale, µs; null: of one nothing was checked yet.

    """

    venue: str
    symbols: int
    states: dict[FeedKind, int]
    last_traded_at: int | None
    complete_until: int | None


class Feeds(msgspec.Struct, frozen=True):
    """All feeds.

    Attributes:
        symbols: how many there are.
        states: how many of them in each state.
        workers: how many ingest workers have said something within a minute.
        troubled: those that are not connected, or are and have a reason; the worst first, at most 100, and those that
            were asked for by name whatever they are.
        troubled_left_out: how many more there are.

    """

    symbols: int
    states: dict[FeedKind, int]
    workers: int
    venues: list[Venue]
    troubled: list[Feed]
    troubled_left_out: int


class Lag(msgspec.Struct, frozen=True):
    """How far a group is behind the end of a topic, as of what it has committed.

    Attributes:
        records: how many offsets are between; 0 where nothing is left that a reader gets.
        seconds: how long ago the next record to be read was appended, the longest of all partitions; 0 where none is.
        partition: the one that is furthest behind, in seconds; null where none is.
        lost: partitions whose next record has expired: the group will never read it.
        unread: partitions of which the group has committed nothing though there are records.

    """

    topic: str
    records: int
    seconds: float
    partition: int | None
    lost: list[int]
    unread: list[int]


class Group(msgspec.Struct, frozen=True):
    """A stage's consumer group.

    Attributes:
        group: its name, without `ASHI_TOPIC_PREFIX`.
        state: of the group, in Kafka's words; null: not known, or a strategy's.
        members: how many workers are in it; null: not known, as always of a strategy, whose process only commits there.
        partitions: how many partitions its first topic has.
        unowned: the partitions of its first topic that no member has; of a group without members, or that
            rebalances, all are.
        lags: of each topic that it reads; null: not known.
        newest_row: of a sink of candles: the close time of the newest candle that is stored, µs; null: not known.

    """

    stage: Stage
    group: str
    state: str | None
    members: int | None
    partitions: int
    unowned: list[int]
    lags: list[Lag] | None
    newest_row: int | None = None


class Newest(msgspec.Struct, frozen=True):
    """The candle that closed last of those seen, of a timeframe, or of a symbol and a timeframe.

    Attributes:
        symbol: whose it is; of several that closed at that time the one that was appended last.
        symbols: how many symbols have a candle that closed at that time.
        close: its price, a decimal as text.
        appended_at: when Kafka got it, µs.

    """

    timeframe: str
    symbol: str
    open_time: int
    close_time: int
    close: str
    appended_at: int
    symbols: int


class Delay(msgspec.Struct, frozen=True):
    """How long after they might have closed candles were in Kafka, s: append time minus window end minus lateness.

    Of the candles that closed within the last `seconds`, each when it came first.
    """

    candles: int
    seconds: float
    median: float
    p99: float
    most: float


class Gaps(msgspec.Struct, frozen=True):
    """The gaps that changed last within `seconds`, by state; `lost` are those that are not final.

    Attributes:
        final: lost for good: the venue itself does not have these trades.
        worst: the open and the lost ones, the latest first, at most 20.
        late: of trades that came too late for their candles, and wait for `ashi rebuild`; `latest_late` is the one
            that was told of last.

    """

    seconds: float
    open: int
    lost: int
    final: int
    repaired: int
    worst: list[Gap]
    late: int = 0
    latest_late: Gap | None = None


class Gap(msgspec.Struct, frozen=True):
    """One gap; times are µs, `to_time` null where it goes on."""

    symbol: str
    state: Literal["open", "lost"]
    from_time: int
    to_time: int | None
    reason: str


class Snapshot(msgspec.Struct, frozen=True):
    """All of it.

    Attributes:
        at: when it was looked at, µs, by the clock of this machine.
        kafka: where Kafka is.
        brokers: how many are there; null: none could be reached.
        partitions_without_leader: `topic/number` of those that can be neither read nor written.
        feeds: null: not known, as all that follow.
        stages: groups of aggregate workers and strategies.
        stores: groups of sinks.
        delay: null also where no candle has closed.
        dead_letters: how many records the topics of letters got in the last hour, by topic.
        clock_ahead: how far this machine's clock is ahead of the brokers', s; null: nothing came to tell by.
        problems: the worse first.
        unknown: what cannot be known now.

    """

    at: int
    kafka: str
    brokers: int | None
    partitions_without_leader: list[str]
    feeds: Feeds | None
    stages: list[Group] | None
    stores: list[Group] | None
    delay: Delay | None
    candles: list[Newest] | None
    gaps: Gaps | None
    dead_letters: dict[str, int] | None
    clock_ahead: float | None
    problems: list[Problem]
    unknown: list[Unknown]
    schema: str = SCHEMA


def to_json(snapshot: Snapshot) -> str:
    """One line."""
    return msgspec.json.encode(snapshot).decode()
