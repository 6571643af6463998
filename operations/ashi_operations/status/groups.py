"""The stages' groups: which there are, and how far each has come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.errors import BrokerError, ContractError
from ashi.contracts.records import candle_in, is_loaded
from ashi.contracts.topics import AGGREGATE_APP, CANDLES, FEED_GAPS, FEED_STATUS, TRADES
from ashi_operations.status.snapshot import Group, Lag, Stage, Unknown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ashi.contracts.candle import Candle
    from ashi.runtime.kafka.cluster.survey import ClusterView, Range, Survey
    from ashi.runtime.settings import Settings

SINKS: Final = "ashi-sink-"
STRATEGIES: Final = "ashi-strategy-"
READ: Final[Mapping[Stage, Sequence[str]]] = {
    "aggregate": (TRADES,),
    "sink": (CANDLES, FEED_GAPS, FEED_STATUS, TRADES),
    "strategy": (CANDLES,),
}
"""The topics that a stage may read, the most important first."""


class Place(NamedTuple):
    """How far a group has come in a topic, by partition: pure facts of which a `Lag` is made.

    Attributes:
        committed: where it goes on; partitions that it never committed are left out.
        ranges: where each partition begins and ends.
        waiting_since_ms: when the next record to be read was appended, of the partitions that have one.

    """

    topic: str
    committed: Mapping[int, int]
    ranges: Mapping[int, Range]
    waiting_since_ms: Mapping[int, int]


def stage_of(group: str, settings: Settings) -> Stage | None:
    """Which stage a group belongs to; None if it is not one of Ashi's."""
    if group == AGGREGATE_APP:
        return "aggregate"
    if group.startswith(SINKS) or group == settings.sink_group:
        return "sink"
    return "strategy" if group.startswith(STRATEGIES) else None


def lag_of(place: Place, now_ms: int) -> Lag:
    """How far behind a place is, at a time in ms."""
    waits = {number: max(now_ms - since, 0) / 1_000 for number, since in place.waiting_since_ms.items()}
    furthest = max(waits, key=lambda number: waits[number], default=None)
    records = sum(
        max(place.ranges[number].end - max(place.committed.get(number, 0), place.ranges[number].begin), 0)
        for number in waits
    )
    return Lag(
        topic=place.topic,
        records=records,
        seconds=0.0 if furthest is None else waits[furthest],
        partition=furthest,
        lost=sorted(number for number, at in place.committed.items() if at < place.ranges[number].begin),
        unread=sorted(number for number in waits if number not in place.committed),
    )


async def ask_groups(
    asked: Survey, cluster: ClusterView, settings: Settings, now_ms: int
) -> tuple[list[Group], list[Unknown]]:
    """All groups of Ashi, those of aggregate workers in any case, and what is not known of them. Raises BrokerError."""
    names = {name: stage for name in await asked.groups() if (stage := stage_of(name, settings)) is not None}
    names.setdefault(AGGREGATE_APP, "aggregate")
    topics = {topic for stage in names.values() for topic in READ[stage]} & cluster.topics.keys()
    found = await asyncio.gather(*(_ranges(asked, cluster, topic) for topic in sorted(topics)))
    ranges = dict(zip(sorted(topics), found, strict=True))
    unknown: list[Unknown] = []
    groups = await asyncio.gather(
        *(
            _group(asked, cluster, ranges, name=name, stage=stage, now_ms=now_ms, unknown=unknown)
            for name, stage in sorted(names.items())
        )
    )
    return [group for group in groups if not _is_of_before(group)], unknown


def _is_of_before(group: Group) -> bool:
    """Whether it is only a name that Kafka keeps for a while: nobody is in it, and it has come nowhere."""
    return group.stage != "aggregate" and not group.members and group.lags == []


async def _ranges(asked: Survey, cluster: ClusterView, topic: str) -> dict[int, Range]:
    view = cluster.topics[topic]
    led = {each["partition"] for each in view.partitions} - set(view.leaderless)
    return await asked.ranges(topic, sorted(led))


async def _group(
    asked: Survey,
    cluster: ClusterView,
    ranges: Mapping[str, Mapping[int, Range]],
    *,
    name: str,
    stage: Stage,
    now_ms: int,
    unknown: list[Unknown],
) -> Group:
    state: str | None = None
    count: int | None = None
    held: set[tuple[str, int]] = set()
    if stage != "strategy":  # which only commits in its group (docs/decisions/0011): nobody is ever in it
        try:
            described = await asked.describe(name)
            state, count = described.state, len(described.members)
            held = {at for member in described.members for at in member.held}
        except BrokerError as error:
            unknown.append(Unknown(f"who is in group {name}", str(error)))
    topics = [topic for topic in READ[stage] if topic in ranges]
    places: list[Place] | None = None
    row: int | None = None
    try:
        places = await _places(asked, name, stage, {topic: ranges[topic] for topic in topics})
        row = await _newest_row(asked, places) if stage == "sink" else None
    except BrokerError as error:
        unknown.append(Unknown(f"how far group {name} has come", str(error)))
    first = places[0].topic if places else topics[0] if topics else ""
    partitions = len(cluster.topics[first].partitions) if first else 0
    owned = {number for topic, number in held if topic == first}
    return Group(
        stage=stage,
        group=name,
        state=state,
        members=count,
        partitions=partitions,
        unowned=[] if count is None else sorted(set(range(partitions)) - owned),
        lags=None if places is None else [lag_of(place, now_ms) for place in places],
        newest_row=row,
    )


async def _places(asked: Survey, group: str, stage: Stage, ranges: Mapping[str, Mapping[int, Range]]) -> list[Place]:
    """Where a group is in each topic that it has ever committed; an aggregate worker's always."""
    committed = await asked.committed(group, {topic: list(of_topic) for topic, of_topic in ranges.items()})
    places = []
    for topic, of_topic in ranges.items():
        at = committed.get(topic, {})
        if not at and stage != "aggregate":
            continue
        begins = {number: max(at.get(number, 0), each.begin) for number, each in of_topic.items()}
        ends = {number: each.end for number, each in of_topic.items()}
        waiting = await asked.next_records(topic, begins, ends)
        places.append(Place(topic, at, of_topic, {number: each.timestamp for number, each in waiting.items()}))
    return places


async def _newest_row(asked: Survey, places: list[Place]) -> int | None:
    """The close time of the newest candle that a sink has stored: of those just before where it goes on, µs."""
    for place in places:
        if place.topic == CANDLES:
            before = {
                number: at - 1
                for number, at in place.committed.items()
                if number in place.ranges and place.ranges[number].begin < at <= place.ranges[number].end
            }
            found = await asked.next_records(CANDLES, before, {number: at + 1 for number, at in before.items()})
            candles = (_candle(record) for record in found.values())
            return max((candle.close_time for candle in candles if candle is not None), default=None)
    return None


def _candle(record: object) -> Candle | None:
    try:
        # One that was loaded is of long ago: it does not tell how far the sink has come.
        return None if is_loaded(record) else candle_in(record)  # type: ignore[arg-type]  # as the client gives it
    except ContractError:
        return None
