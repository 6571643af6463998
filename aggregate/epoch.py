"""The epoch: which settings the living state was built with. It stands in the compacted topic `ashi.meta`."""

from __future__ import annotations

from typing import Final

import msgspec

from aggregate.core.row import WindowRules
from ashi.contracts.candle import MAX_EPOCH
from ashi.contracts.errors import StateError
from ashi.contracts.timeframe import parse_timeframes
from ashi.contracts.topics import AGGREGATE_APP, META, TRADES, TopicSpec, changelog_topic, topic_specs
from ashi.runtime.groups import members
from ashi.runtime.kafka import make_producer, read_topic
from ashi.runtime.offsets import end_offsets, offsets_at
from ashi.runtime.parsers import format_duration
from ashi.runtime.settings import Settings
from ashi.runtime.topics import create_topics, grow_topics, require_topics

EPOCH_KEY: Final = b"epoch"


class Epoch(msgspec.Struct, frozen=True):
    """What changes only with the epoch: with other settings the same trades give other candles.

    Attributes:
        epoch: 0 for the first; see `ashi.contracts.candle.make_version`.
        timeframes: as in ASHI_TIMEFRAMES, finest first.
        allowed_lateness_us: µs; `correction_horizon_us` likewise.
        begin: offset of each partition of `trades` at which the state begins to read; by default the log's first.

    """

    epoch: int
    timeframes: list[str]
    allowed_lateness_us: int
    correction_horizon_us: int
    begin: dict[int, int] = {}

    def has_settings_of(self, other: Epoch) -> bool:
        """Whether both give the same candles of the same trades."""
        return (self.timeframes, self.allowed_lateness_us, self.correction_horizon_us) == (
            other.timeframes,
            other.allowed_lateness_us,
            other.correction_horizon_us,
        )

    def __str__(self) -> str:
        return (
            f"ASHI_TIMEFRAMES={','.join(self.timeframes)} "
            f"ASHI_ALLOWED_LATENESS={format_duration(self.allowed_lateness_us)} "
            f"ASHI_CORRECTION_HORIZON={format_duration(self.correction_horizon_us)}"
        )

    def rules(self, flat_candles: int) -> WindowRules:
        """The rules of the windows, with the settings that do not belong to the epoch."""
        return WindowRules(
            finest=parse_timeframes(self.timeframes[0])[0],
            lateness_us=self.allowed_lateness_us,
            horizon_us=self.correction_horizon_us,
            epoch=self.epoch,
            max_flat=flat_candles,
        )


def _make_epoch(settings: Settings, number: int, begin: dict[int, int] | None = None) -> Epoch:
    return Epoch(
        epoch=number,
        timeframes=[str(timeframe) for timeframe in settings.timeframes],
        allowed_lateness_us=settings.allowed_lateness_us,
        correction_horizon_us=settings.correction_horizon_us,
        begin=begin or {},
    )


async def agree_on_epoch(settings: Settings) -> Epoch:
    """The current epoch; the first worker of all writes it down.

    Raises StateError when this worker's settings are not the epoch's.
    """
    current = await _read_epoch(settings)
    if current is None:
        current = _make_epoch(settings, 0)
        await _write_epoch(settings, current)
    mine = _make_epoch(settings, current.epoch)
    if not current.has_settings_of(mine):
        raise StateError(
            f"the state on this Kafka was built with {current}; this worker has {mine}. One version of a candle would "
            "have two contents: start it with the settings of the state, or stop all aggregate workers and build the "
            "state anew with `ashi aggregate reconfigure`"
        )
    return current


async def reconfigure(settings: Settings, begin_at_us: int | None = None) -> tuple[Epoch | None, Epoch]:
    """Raise the epoch, with these settings: workers then build their state anew from the log.

    From its beginning, or from the first record appended at or after `begin_at_us`. Windows that began before the
    first record read are not emitted again. Gives the epoch before, if there was one, and the new one.

    Raises StateError while aggregate workers run, or when no epoch is left; BrokerError when a topic is missing.
    """
    await require_topics(settings, [META, TRADES])
    running = await members(settings, AGGREGATE_APP)
    if running:
        raise StateError(
            f"{running} aggregate workers run (or have ended within the session timeout): stop them all, then try again"
        )
    before = await _read_epoch(settings)
    if before is not None and before.epoch >= MAX_EPOCH:
        raise StateError(f"epoch {MAX_EPOCH} is the last one: give this deployment topics of its own")
    partitions = len(await end_offsets(settings, TRADES))
    state_topics = _state_topics(settings, partitions)
    await create_topics(settings, state_topics)
    await grow_topics(settings, state_topics)
    begin = await offsets_at(settings, TRADES, begin_at_us // 1000) if begin_at_us is not None else None
    after = _make_epoch(settings, 0 if before is None else before.epoch + 1, begin)
    await _write_epoch(settings, after)
    return before, after


def _state_topics(settings: Settings, partitions: int) -> list[TopicSpec]:
    prefix = changelog_topic("").removesuffix("-changelog")
    return [spec for spec in topic_specs(partitions, settings.timeframes) if spec.name.startswith(prefix)]


async def _read_epoch(settings: Settings) -> Epoch | None:
    current = None
    async for record in read_topic(settings, META):
        if record.key == EPOCH_KEY and record.value is not None:
            try:
                current = msgspec.json.decode(record.value, type=Epoch)
            except msgspec.MsgspecError as error:
                raise StateError(
                    f"the epoch in topic {META} cannot be read ({error}): {record.value[:200]!r}. Write it anew with "
                    "`ashi aggregate reconfigure` of the version of Ashi that wrote it"
                ) from None
    return current


async def _write_epoch(settings: Settings, epoch: Epoch) -> None:
    producer = make_producer(settings)
    await producer.start()
    try:
        await producer.send_and_wait(META, key=EPOCH_KEY, value=msgspec.json.encode(epoch))
    finally:
        await producer.stop()
