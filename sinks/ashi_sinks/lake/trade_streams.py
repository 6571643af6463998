"""What `ashi sink lake --topic trades` moves: topic `trades`, each record once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import StorageError
from ashi.contracts.topics import TRADES, TRADES_DEAD
from ashi.contracts.trade import decode_trade
from ashi.runtime.kafka.offsets import end_offsets
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

    def __init__(self, lake: Lake) -> None:
        self.streams = (Stream(TRADES, _decode, self._write),)
        self._table = LakeTrades(lake)

    async def open(self) -> None:
        """Open the table, or make it. See `Streams.open`."""
        await self._table.open_or_make()

    async def is_empty(self, settings: Settings, /) -> bool:
        """Whether nothing of the topic is stored. Raises StorageError when what is stored is of another topic."""
        ends = await end_offsets(settings, TRADES)
        stored = await self._table.stored(ends)
        for partition, offset in stored.items():
            if offset >= ends[partition]:
                raise StorageError(
                    f"the lake has partition {partition} of topic {TRADES} up to offset {offset}, and the topic ends "
                    f"before {ends[partition]}: it was made anew, or is that of another Kafka; name another lake for it"
                )
        return not stored

    async def close(self) -> None:
        """See `Streams.close`."""
        await self._table.close()

    async def _write(self, trades: Sequence[StoredTrade]) -> None:
        await self._table.write(trades)
        metrics.batch_rows.labels(self.name).observe(len(trades))


def _decode(record: Record) -> StoredTrade:
    return StoredTrade(record.partition, record.offset, decode_trade(record.value or b""))
