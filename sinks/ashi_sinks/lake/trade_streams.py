"""What `ashi sink lake --topic trades` moves: topic `trades`, each record once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import ContractError, StorageError
from ashi.contracts.records import trade_in
from ashi.contracts.topics import TRADES, TRADES_DEAD
from ashi.runtime.kafka.cluster.offsets import begin_offsets, end_offsets
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.kafka.consuming.records import read_at
from ashi.runtime.metrics import sink as metrics
from ashi_sinks.lake.tables import StoredTrade
from ashi_sinks.lake.trades import LakeTrades
from ashi_sinks.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.runtime.settings import Settings
    from ashi_sinks.consumer import Record
    from ashi_sinks.lake.location import Lake


class TradeStreams:
    """Topic `trades` in a lake; see `ashi_sinks.streams.Streams`."""

    name: Final = "lake-trades"
    what: Final = TRADES
    dead_topic: Final = TRADES_DEAD
    remedy: Final = (
        "A lake keeps the records of one log, by their offsets: name another lake for this one, and look at the "
        "aggregate workers, whose state is of the log before"
    )

    def __init__(self, lake: Lake) -> None:
        self.streams = (Stream(TRADES, _decode, self._write, self._look),)
        self._table = LakeTrades(lake)

    async def open(self) -> None:
        """Open the table, or make it. See `Streams.open`."""
        await self._table.open_or_make()

    async def is_empty(self, settings: Settings, /) -> bool:
        """Whether nothing of the topic is stored. Raises StorageError when what is stored is of another topic."""
        begins, ends = await begin_offsets(settings, TRADES), await end_offsets(settings, TRADES)
        stored = await self._table.stored(ends)
        for partition, offset in stored.items():
            if offset >= ends[partition]:
                raise StorageError(
                    f"the lake has partition {partition} of topic {kafka_name(settings, TRADES)} up to offset "
                    f"{offset}, and the topic ends before {ends[partition]}: it was made anew, or is that of another "
                    "Kafka; name another lake"
                )
            if offset >= begins[partition] and not await self._holds(settings, partition, offset):
                raise StorageError(
                    f"the lake has partition {partition} of topic {kafka_name(settings, TRADES)} up to offset "
                    f"{offset}, and what is there now is another record: the topic was cut or made anew, or is that of "
                    "another Kafka; name another lake for it"
                )
        return not stored

    async def close(self) -> None:
        """See `Streams.close`."""
        await self._table.close()

    async def _holds(self, settings: Settings, partition: int, offset: int) -> bool:
        """Whether the lake has the record that the topic has there."""
        record = (await read_at(settings, TRADES, partition, [offset])).get(offset)
        if record is None:
            return False  # what is stored was a record
        try:
            return await self._table.holds(_decode(record))
        except ContractError:
            return False

    async def _look(self) -> None:
        await self._table.look()

    async def _write(self, trades: Sequence[StoredTrade]) -> None:
        await self._table.write(trades)
        metrics.batch_rows.labels(self.name).observe(len(trades))


def _decode(record: Record) -> StoredTrade:
    return StoredTrade(record.partition, record.offset, trade_in(record))
