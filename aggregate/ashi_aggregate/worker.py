"""The aggregate worker: agree on the epoch, start the application, watch it, and end with it."""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from ashi.contracts.access import Access, aggregate_access
from ashi.contracts.errors import AshiError, BrokerError, StateError
from ashi.contracts.topics import MAX_CHANGELOG_RECORD_BYTES, TRADES, state_topics
from ashi.runtime.kafka.cluster.retention import show_retention
from ashi.runtime.kafka.cluster.topics import (
    APPEND_TIME,
    TIMESTAMP_TYPE,
    partition_counts,
    topic_setting,
)
from ashi.runtime.kafka.cluster.writers_time import warn_of_writers_time
from ashi.runtime.kafka.connections.errors import as_broker_error
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import aggregate as metrics
from ashi.runtime.process_age import process_age_s
from ashi.runtime.service import Service, run_service
from ashi.runtime.settings import Settings
from ashi.runtime.waiting import start_when_kafka_is_there
from ashi_aggregate.collector import Collector
from ashi_aggregate.core.trade_ids import MAX_IDS
from ashi_aggregate.epoch import Epoch, agree_on_epoch
from ashi_aggregate.faust.app import AggregateApp, make_app
from ashi_aggregate.faust.membership import TakeUpWatch
from ashi_aggregate.fencing import SessionGuard
from ashi_aggregate.native.library import load_kernel

STOP_FAILED_S: Final = 10.0
"""How long an application that has failed may take to stop."""
_WATCH_INTERVAL_S: Final = 0.25

_log = get_logger(__name__)


class Stoppable(Protocol):
    """What `_stop_failed` needs of an application."""

    async def stop(self) -> None:
        """Stop it."""


def run_aggregate(settings: Settings) -> int:
    """Run a worker until it is told to stop; gives the exit status of the process."""
    return run_service("aggregate", settings, aggregate)


async def aggregate(service: Service) -> None:
    """The worker's main coroutine. Raises an AshiError when it must stop, saying why.

    While Kafka cannot be reached at the start, it is waited for.
    """
    metrics.handover_seconds.labels("process").set(process_age_s() or math.nan)
    tried_at_s = time.monotonic()

    def on_try() -> None:
        nonlocal tried_at_s
        tried_at_s = time.monotonic()

    async def work(on_begun: Callable[[], None]) -> None:
        await _aggregate(service, tried_at_s, on_begun)

    await start_when_kafka_is_there(service, _access(service.settings), work, on_try)


async def _aggregate(service: Service, tried_at_s: float, on_begun: Callable[[], None]) -> None:
    settings = service.settings
    epoch, partitions = await service.unless_stopped(_prepare(settings))
    checks_s = time.monotonic() - tried_at_s
    metrics.handover_seconds.labels("checks").set(checks_s)
    _show_limits(epoch, partitions)
    native_fold = settings.native_fold and load_kernel() is not None
    _log.info(
        "joining the group", instance_id=settings.instance_id, native_fold=native_fold, checks_s=round(checks_s, 2)
    )
    session_guard = SessionGuard(settings.session_timeout_us)
    with tempfile.TemporaryDirectory(prefix="ashi-aggregate-") as datadir:
        app = make_app(settings, epoch, partitions, session_guard, Path(datadir))
        starting = asyncio.create_task(app.start())
        ticking = asyncio.create_task(_tick(session_guard))
        failed = True
        try:
            await _watch(service, app, starting, on_begun)
            failed = False
        finally:
            starting.cancel()  # a start that goes on while everything stops would wait for what is gone
            await asyncio.wait([starting])
            await (_stop_failed(app) if failed else app.stop())
            ticking.cancel()
            service.health.set_hanging(None)


async def _stop_failed(app: Stoppable) -> None:
    """Stop what has failed, as far as it can be: what it failed of is what must be told.

    What a crash has ended is asked to commit once more. Where that is the thread of the consumer, it refuses, which hid
    the failure, or, between its last word and the end of its loop, never answers.
    """
    stopping = asyncio.ensure_future(app.stop())
    done, _ = await asyncio.wait([stopping], timeout=STOP_FAILED_S)
    if not done:
        stopping.cancel()
        _log.warning("what has failed does not stop, ending without", seconds=STOP_FAILED_S)
    elif not stopping.cancelled() and (error := stopping.exception()) is not None:
        _log.warning("what has failed did not stop cleanly", error=str(error))


def _show_limits(epoch: Epoch, partitions: int) -> None:
    metrics.aggregate_info.labels(str(epoch.epoch), ",".join(epoch.timeframes)).set(1)
    metrics.aggregate_partitions.set(partitions)
    metrics.row_limit_bytes.set(MAX_CHANGELOG_RECORD_BYTES)
    metrics.id_intervals_limit.set(MAX_IDS)


def _access(settings: Settings) -> Access:
    live = settings.live_interval_us is not None
    return aggregate_access(settings.timeframes, quiet_close=settings.quiet_close, live=live)


async def _prepare(settings: Settings) -> tuple[Epoch, int]:
    """The epoch that this worker's settings agree with, and the number of partitions."""
    # Each connects by itself: at once they take as long as the longest of them.
    epoch, counts, *_ = await asyncio.gather(
        agree_on_epoch(settings),
        partition_counts(settings),
        _check_time(settings),
        show_retention(settings, [TRADES]),
    )
    _check_partitions(settings, counts)
    return epoch, counts[TRADES]


async def _check_time(settings: Settings) -> None:
    """Raise StateError if windows would close by a time that is not Kafka's; warn of topics that have another."""
    if settings.quiet_close and await topic_setting(settings, TRADES, TIMESTAMP_TYPE) != APPEND_TIME:
        raise StateError(
            f"topic {kafka_name(settings, TRADES)} does not have message.timestamp.type=LogAppendTime, so the windows "
            "of quiet markets would close by the clocks of whoever publishes: `ashi topics check` says how to set it; "
            "or set ASHI_QUIET_CLOSE=off"
        )
    await warn_of_writers_time(settings, list(_access(settings).topics))


def _check_partitions(settings: Settings, counts: Mapping[str, int]) -> None:
    """Raise StateError unless the topics of the state have as many partitions as `trades`, by the counts of each."""
    partitions = counts[TRADES]
    for topic in state_topics(settings.timeframes):
        if counts.get(topic) != partitions:
            raise StateError(
                f"topic {kafka_name(settings, topic)} has {counts.get(topic)} partitions and "
                f"{kafka_name(settings, TRADES)} has {partitions}: they must be the same, and the symbols have "
                "moved. Stop all aggregate workers, then run `ashi aggregate reconfigure`"
            )


async def _tick(session_guard: SessionGuard) -> None:
    """Check the session as long as the worker runs: a shutdown that waits is no process that stood still."""
    while True:
        session_guard.check()
        await asyncio.sleep(_WATCH_INTERVAL_S)


async def _watch(
    service: Service, app: AggregateApp, starting: asyncio.Task[None], on_begun: Callable[[], None]
) -> None:
    """Until told to stop: raise what the application died of, beat while it makes progress."""
    app.finalize()
    collector = Collector()
    ready = False
    take_up = TakeUpWatch(app.take_up_bound_s)
    seen: tuple[str, int] | None = None
    while not service.stopping.is_set():
        _raise_failure(app, starting)
        if not ready and starting.done():
            on_begun()
            service.health.set_ready(True, "aggregating")
            _log.info("ready")
            collector.take_over(time.monotonic())
            ready = True
        if ready:
            collector.look(time.monotonic(), is_busy=app.pipeline.is_closing)
        seen, before = _progress(app), seen
        # Before it is ready, and while a rebalance goes on, it waits for others too: that has a bound of its own.
        if not ready or seen != before:
            service.health.beat()
        taken_up = ready and not app.consumer.takes_up
        service.health.set_hanging(take_up.complaint(taken_up=taken_up, restored=app.consumer.restored_records))
        await service.pause(_WATCH_INTERVAL_S, alive=False)


def _progress(app: AggregateApp) -> tuple[str, int]:
    """What changes as long as the worker gets on.

    In a recovery that is what is left to read. Otherwise it is checkpoints: an idle worker makes them too, one that
    waits for ever on Kafka does not.
    """
    recovery = app.tables.recovery
    if recovery.in_recovery and app.consumer.flow_active:
        remaining = recovery.active_remaining_total()
        metrics.restore_remaining_records.set(remaining)
        return "left to recover", remaining
    metrics.restore_remaining_records.set(0)
    return "checkpoints", app.pipeline.checkpoints


def _raise_failure(app: AggregateApp, starting: asyncio.Task[None]) -> None:
    if starting.done() and starting.exception() is not None:
        raise _failure(starting.exception(), app.settings)
    if app.crashed:
        raise _failure(app._crash_reason, app.settings)
    app.raise_if_dead()
    if app.should_stop:
        raise BrokerError("the aggregate application stopped by itself; see the log above for why, and start it again")


def _failure(reason: BaseException | None, settings: Settings) -> BaseException:
    if isinstance(reason, AshiError):
        return reason
    if reason is None:
        return StateError("the aggregate application crashed; see the log above for why, and start it again")
    return as_broker_error(reason, settings) or reason
