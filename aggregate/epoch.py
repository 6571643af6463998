"""The epoch: which settings the living state was built with. It stands in the compacted topic `ashi.meta`."""

from __future__ import annotations

from typing import Final

import msgspec

from aggregate.core.aggregator import WindowRules
from ashi.contracts.errors import StateError
from ashi.contracts.topics import META
from ashi.runtime.kafka import make_producer, read_topic
from ashi.runtime.parsers import format_duration
from ashi.runtime.settings import Settings

EPOCH_KEY: Final = b"epoch"


class Epoch(msgspec.Struct, frozen=True):
    """What changes only with the epoch: with other settings the same trades give other candles.

    `timeframes` are written as in ASHI_TIMEFRAMES, finest first; times are µs.
    """

    epoch: int
    timeframes: list[str]
    allowed_lateness_us: int
    correction_horizon_us: int


def _describe(epoch: Epoch) -> str:
    return (
        f"ASHI_TIMEFRAMES={','.join(epoch.timeframes)} "
        f"ASHI_ALLOWED_LATENESS={format_duration(epoch.allowed_lateness_us)} "
        f"ASHI_CORRECTION_HORIZON={format_duration(epoch.correction_horizon_us)}"
    )


async def agree_on_epoch(settings: Settings) -> WindowRules:
    """The rules of the current epoch; the first worker of all writes them down.

    Raises StateError when this worker's settings are not the epoch's.
    """
    current: Epoch | None = None
    async for record in read_topic(settings, META):
        if record.key == EPOCH_KEY and record.value is not None:
            current = msgspec.json.decode(record.value, type=Epoch)
    mine = Epoch(
        epoch=0 if current is None else current.epoch,
        timeframes=[str(timeframe) for timeframe in settings.timeframes],
        allowed_lateness_us=settings.allowed_lateness_us,
        correction_horizon_us=settings.correction_horizon_us,
    )
    if current is None:
        producer = make_producer(settings)
        await producer.start()
        try:
            await producer.send_and_wait(META, key=EPOCH_KEY, value=msgspec.json.encode(mine))
        finally:
            await producer.stop()
    elif current != mine:
        raise StateError(
            f"the state on this Kafka was built with {_describe(current)}; this worker has {_describe(mine)}. "
            "One version of a candle would have two contents: start it with the settings of the state"
        )
    return WindowRules(
        finest=settings.timeframes[0],
        lateness_us=settings.allowed_lateness_us,
        horizon_us=settings.correction_horizon_us,
        epoch=mine.epoch,
    )
