"""The worker of `ashi sink lake --topic trades`: poll, decode, batch, write, commit.

As the worker of candles (`sinks.worker`), with trades that are only ever added. An offset is committed after the table
has the trade; a crash in between repeats the stretch, of which the table leaves out what it has.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ashi.contracts.errors import ContractError, StorageError
from ashi.contracts.topics import TRADES, TRADES_DEAD
from ashi.contracts.trade import decode_trade
from ashi.runtime import metrics
from ashi.runtime.deadletter import DeadLetter, dead_letter
from ashi.runtime.logs import get_logger
from ashi.runtime.offsets import end_offsets
from ashi.runtime.service import run_service
from sinks.lake_store import lake_of
from sinks.lake_tables import StoredTrade
from sinks.lake_trades import LakeTrades
from sinks.log import KafkaLog
from sinks.worker import IDLE_WAIT_S, sink_group, unless_stopped
from sinks.writer import Patience, StoppedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ashi.runtime.service import Service
    from ashi.runtime.settings import Settings
    from sinks.log import Record, SinkLog

_log = get_logger(__name__)


def run_trades_sink(settings: Settings, *, from_beginning: bool = False) -> int:
    """Keep topic `trades` in the lake of `settings.storage` until SIGTERM; the exit status.

    `from_beginning` takes the group back to the beginning of the topic first, as an empty table does by itself. Raises
    UsageError when the storage URL is wrong or is that of another store.
    """
    table = LakeTrades(lake_of(settings.storage))

    async def main(service: Service) -> None:
        try:
            async with _open(service, table, from_beginning=from_beginning) as worker:
                await worker.run()
        except StoppedError:
            _log.warning("stopped while the store was away; what is not stored yet is read again at the next start")

    return run_service(f"sink-{table.name}", settings, main)


@asynccontextmanager
async def _open(service: Service, table: LakeTrades, *, from_beginning: bool) -> AsyncIterator[TradesWorker]:
    settings = service.settings
    patience = Patience(table.name, service.health, service.stopping)
    async with AsyncExitStack() as closing:
        closing.push_async_callback(table.close)
        await patience.until_there(table.open_or_make)
        service.health.set_ready(False, "joining the group")
        log = KafkaLog(settings, sink_group(table.name), [TRADES], TRADES_DEAD)
        closing.push_async_callback(log.close)
        await unless_stopped(service, log.start())
        empty = await _is_empty(table, await end_offsets(settings, TRADES))
        if empty or from_beginning:
            await unless_stopped(service, log.rewind())
            why = "the table is empty" if empty else "told to begin anew"
            _log.info(f"{why}, reading topic trades from its beginning")
        service.health.set_ready(True, "storing trades")
        _log.info("storing trades", group=sink_group(table.name))
        yield TradesWorker(
            log,
            table,
            patience,
            service,
            batch_size=settings.sink_batch_size,
            batch_interval_s=settings.sink_batch_interval_us / 1_000_000,
        )


async def _is_empty(table: LakeTrades, ends: dict[int, int]) -> bool:
    """Whether nothing of the topic is stored. Raises StorageError when what is stored is of another topic."""
    stored = await table.stored(ends)
    for partition, offset in stored.items():
        if offset >= ends[partition]:
            raise StorageError(
                f"the lake has partition {partition} of topic {TRADES} up to offset {offset}, and the topic ends "
                f"before {ends[partition]}: it was made anew, or is that of another Kafka; name another lake for it"
            )
    return not stored


@dataclass(slots=True)
class _Batch:
    """What has been read and not yet stored: trades, dead letters, where to go on from."""

    trades: list[StoredTrade] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    offsets: dict[Any, int] = field(default_factory=dict)
    began: float = 0.0

    def __len__(self) -> int:
        return len(self.trades) + len(self.letters)


class TradesWorker:
    """Moves trades from the log to the table, batch by batch, until it is told to stop."""

    def __init__(
        self,
        log: SinkLog,
        table: LakeTrades,
        patience: Patience,
        service: Service,
        *,
        batch_size: int,
        batch_interval_s: float,
    ) -> None:
        self._log = log
        self._table = table
        self._patience = patience
        self._service = service
        self._size = batch_size
        self._interval_s = batch_interval_s
        self._batch = _Batch()
        self._uncommitted: dict[Any, int] = {}

    async def run(self) -> None:
        """Work until the service stops, then store and commit what is in hand.

        Raises StoppedError when the lake is away at that moment, StorageError when it is lost, BrokerError when a dead
        letter cannot be sent.
        """
        while not self._service.stopping.is_set():
            await self._read()
            if self._is_due():
                await self._store()
            self._service.health.beat()
        await self._store()

    def _is_due(self) -> bool:
        if not self._batch:
            return bool(self._uncommitted)
        return len(self._batch) >= self._size or time.monotonic() >= self._batch.began + self._interval_s

    async def _read(self) -> None:
        batch = self._batch
        wait_s = IDLE_WAIT_S
        if batch:
            wait_s = min(wait_s, max(batch.began + self._interval_s - time.monotonic(), 0.0))
        fetched = await self._log.poll(self._size - len(batch), wait_s)
        if fetched and not batch:
            batch.began = time.monotonic()
        for partition, records in fetched.items():
            for record in records:
                self._decode(record)
                batch.offsets[partition] = record.offset + 1

    def _decode(self, record: Record) -> None:
        try:
            trade = decode_trade(record.value or b"")
        except ContractError as error:
            self._batch.letters.append(_letter(record, str(error)))
        else:
            self._batch.trades.append(StoredTrade(record.partition, record.offset, trade))

    async def _store(self) -> None:
        batch, self._batch = self._batch, _Batch()
        if batch.trades:
            began = time.perf_counter()
            await self._patience.until_there(lambda: self._table.write(batch.trades))
            metrics.write_seconds.labels(self._table.name).observe(time.perf_counter() - began)
            metrics.batch_rows.labels(self._table.name).observe(len(batch.trades))
        if batch.letters:
            await self._log.bury(batch.letters)
        self._uncommitted.update(batch.offsets)
        if self._uncommitted and await self._log.commit(self._uncommitted):
            self._uncommitted.clear()


def _letter(record: Record, reason: str) -> DeadLetter:
    source = f"{record.topic}/{record.partition}/{record.offset}"
    metrics.dead_letters.labels("sink", "invalid").inc()
    _log.warning("message is no trade, sent to trades.dead", source=source, reason=reason)
    return dead_letter(TRADES_DEAD, key=record.key, value=record.value or b"", reason=reason, source=source)
