"""Raising the epoch: the workers then build their state anew, with other settings or of another log."""

from __future__ import annotations

import uuid
from typing import Final

import msgspec

from ashi.contracts.errors import StateError
from ashi.contracts.topics import (
    AGGREGATE_APP,
    MARKERS_TABLE,
    META,
    TRADES,
    changelog_topic,
    state_topics,
    topic_specs,
)
from ashi.runtime.kafka.cluster.offsets import end_offsets, first_append_time, offsets_at
from ashi.runtime.kafka.cluster.topics import create_topics, grow_topics, partition_counts, require_topics
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.kafka.consuming.groups import members
from ashi.runtime.settings import Settings
from ashi_aggregate.epoch import (
    Epoch,
    Natural,
    check_left,
    current_epoch,
    last_rebuild,
    make_epoch,
    read_claims,
    write_epoch,
    write_meta,
)

GROWTH_KEY: Final = b"growth"


class Growth(msgspec.Struct, frozen=True):
    """That topic `trades` is being given more partitions, from before it is done: see `ashi_aggregate.growth`.

    Attributes:
        epoch: that of the state before, -1 where there was none. Once it is another the growth is over.
        before: how many partitions there were; `partitions` how many there are to be.
        begin: of each of those before, the offset of the first record that is copied; `end` that after the last one.
        whole_from: as in the epoch to come.

    """

    epoch: int
    before: Natural
    partitions: Natural
    begin: dict[Natural, Natural]
    end: dict[Natural, Natural]
    whole_from: int


async def reconfigure(
    settings: Settings, begin_at_us: int | None = None, *, least: int = 0
) -> tuple[Epoch | None, Epoch]:
    """Raise the epoch, with these settings: workers then build their state anew from the log.

    From its beginning, or from the first record appended at or after `begin_at_us`; if topic `trades` has grown, from
    the first record of the new partitions, because older ones of symbols that moved are not where they belong. Windows
    that began before the first record read are not emitted again. The new epoch is `least` or greater. Gives the epoch
    before, if any, and the new one.

    Raises StateError while aggregate workers run, or when no epoch is left; BrokerError when a topic is missing.
    """
    await require_topics(settings, [META, TRADES])
    await refuse_running(settings)
    before = await current_epoch(settings)
    growth = await unfinished_growth(settings, before)
    if growth is not None:
        raise StateError(
            f"topic {kafka_name(settings, TRADES)} is being given {growth.partitions} partitions: end that first, with "
            f"`ashi topics grow --partitions {growth.partitions}`, which begins the new state itself"
        )
    counts = await partition_counts(settings)
    partitions = counts[TRADES]
    names = set(state_topics(settings.timeframes))
    specs = [spec for spec in topic_specs(partitions, settings.timeframes) if spec.name in names]
    await create_topics(settings, specs)
    await grow_topics(settings, specs)
    before_growth = counts.get(changelog_topic(MARKERS_TABLE), partitions)
    begin = await _find_begin(settings, begin_at_us, before_growth, partitions)
    return before, await begin_epoch(settings, before, begin, least=least)


async def refuse_running(settings: Settings) -> None:
    """Raise StateError while aggregate workers run."""
    running = await members(settings, AGGREGATE_APP)
    if running:
        raise StateError(
            f"{running} aggregate workers run (or have ended within the session timeout): stop them all, then try again"
        )


async def begin_epoch(
    settings: Settings,
    before: Epoch | None,
    begin: dict[int, int] | None,
    whole_from: int | None = None,
    least: int = 0,
) -> Epoch:
    """Write the next epoch down, with these settings; it is `least` or greater. Raises StateError when none is left."""
    # Beyond that of rebuilt candles too: they must yield to those of the new state.
    number = max(-1 if before is None else before.epoch, await last_rebuild(settings), least - 1) + 1
    while True:
        check_left(number)
        after = make_epoch(settings, number, begin, whole_from)
        await write_epoch(settings, after)
        last = await last_rebuild(settings)
        if last < number:
            return after
        number = last + 1  # a rebuild has taken it meanwhile, and may not have seen that we did


async def unfinished_growth(settings: Settings, current: Epoch | None) -> Growth | None:
    """The growth of topic `trades` that was begun in this epoch, of several the first: the others went on with it."""
    epoch = -1 if current is None else current.epoch
    written = await read_claims(settings, GROWTH_KEY, Growth, "a growth")
    return next((growth for _, growth in written if growth.epoch == epoch), None)


async def write_growth(settings: Settings, growth: Growth) -> None:
    """Write down that topic `trades` is being given more partitions."""
    await write_meta(settings, GROWTH_KEY + f"-{growth.epoch}-{uuid.uuid4()}".encode(), growth)


async def _find_begin(
    settings: Settings, begin_at_us: int | None, before_growth: int, partitions: int
) -> dict[int, int] | None:
    """The offsets to begin at; None for where the log begins."""
    if partitions > before_growth:
        grown_at_ms = await first_append_time(settings, TRADES, range(before_growth, partitions))
        if grown_at_ms is None:
            return await end_offsets(settings, TRADES)
        return await offsets_at(settings, TRADES, max(grown_at_ms, (begin_at_us or 0) // 1000))
    return None if begin_at_us is None else await offsets_at(settings, TRADES, begin_at_us // 1000)
