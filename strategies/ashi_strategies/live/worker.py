"""The process of one strategy: candles in, signals into topic `signals`, and how far it has come with them.

What it guarantees: each signal that the strategy gives of a candle stands in the topic once, however often the process
is killed, and is taken back when a correction makes the strategy say something else. A step of the strategy, its
signals and the place up to which topic `candles` was read for it are written together or not at all
(`ashi.runtime.kafka.producing.transactions`), by the process that was started last. A start reads what was written,
lets the strategy go over the candles since, as they are now, and writes what differs (`beginning`). So there is no
state to be stored, and every end is like every other.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from ashi.contracts.access import strategy_access
from ashi.contracts.errors import BrokerUnreachableError, StrategyError
from ashi.runtime.kafka.producing.transactions import TransactionalWriter
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import strategy as metrics
from ashi.runtime.service import BEAT_S, StoppedError, run_service, run_until_first_ends
from ashi.runtime.waiting import start_when_kafka_is_there
from ashi.runtime.wall_clock import now_us
from ashi_strategies.live.beginning import find_beginning, read_known, refuse_namesake
from ashi_strategies.live.catching_up import catch_up
from ashi_strategies.live.desk import Desk, event_of
from ashi_strategies.live.empty import EmptySeries
from ashi_strategies.live.messages import message_of
from ashi_strategies.live.progress import Progress, committed_places
from ashi_strategies.live.watch import LAST_RESORT, watch_memory, watch_time
from ashi_strategies.live.watched_thread import WatchedThread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ashi.client import Position
    from ashi.contracts.signal import Signal
    from ashi.runtime.service import Service
    from ashi.runtime.settings import Settings
    from ashi_strategies.live.catching_up import CaughtUp
    from ashi_strategies.live.instance import Instance

TICK_S: Final = 0.5
"""The strategy is told the time so often, s: a candle that is awaited in vain is given up by it."""
COMMIT_S: Final = 5.0
"""How far topic `candles` has been read is committed at least so often, whether or not there were signals."""
STOP_S: Final = 5.0
"""How long a process that is told to stop goes on with the step in hand."""
AT_ONCE: Final = 500
"""So many candles are gone over, and the signals of them written, at once."""

_log = get_logger(__name__)

_T = TypeVar("_T")


class _BeginAnewError(Exception):
    """Something has happened that a new beginning deals with, in this process."""


def run_strategy(settings: Settings, instance: Instance, *, since: int | None = None, store: str | None = None) -> int:
    """Run a strategy until SIGTERM; the exit status.

    `since`: the close time (µs) after which it gives signals if it never ran before; None: from the newest candle on.
    `store`: the URL of a store with the candles that topic `candles` does not hold any more.
    """
    access = strategy_access(instance.id)
    metrics.strategy_info.labels(instance.name).set(1)

    async def main(service: Service) -> None:
        async def work(on_begun: Callable[[], None]) -> None:
            await StrategyWorker(service, instance, since, store).run(on_begun)

        while not service.stopping.is_set():
            began_s = time.monotonic()
            try:
                await start_when_kafka_is_there(service, access, work)
            except StoppedError:
                _log.info("stopped within a step; the next start does it")
            except (_BeginAnewError, BrokerUnreachableError) as error:
                service.health.set_ready(False, f"beginning anew: {error}")
                _log.warning("beginning anew", reason=str(error))
                await service.pause(max(began_s + COMMIT_S - time.monotonic(), 0.0))

    return run_service(f"strategy-{instance.plans[0].strategy.name}", settings, main)


class StrategyWorker:
    """One beginning of a strategy, and all that follows until it ends."""

    def __init__(self, service: Service, instance: Instance, since: int | None, store: str | None) -> None:
        """Arguments as of `run_strategy`."""
        self._service = service
        self._instance = instance
        self._since = since
        self._store = store
        self._desk: Desk | None = None
        self._committed: tuple[Progress, Position] | None = None
        self._committed_s = 0.0
        self._began_us = now_us()

    async def run(self, on_begun: Callable[[], None]) -> None:
        """Work until the service stops. `on_begun` is called once it reads what comes.

        Raises StrategyError, InstanceTakenError when another process runs the strategy, StateError when topic `candles`
        was made anew, StoppedError when it was told to stop and could not end the step in hand, and BrokerError.
        """
        service, name = self._service, self._instance.name
        bound_s = service.settings.strategy_timeout_us / 1_000_000
        thread = WatchedThread("strategy", last_resort_s=bound_s * LAST_RESORT)
        writer = TransactionalWriter(service.settings, self._instance.id, whose=f"strategy {name}")
        try:
            await run_until_first_ends(
                self._work(thread, writer, on_begun), watch_time(service, thread, name), watch_memory(service, name)
            )
        except StrategyError as error:
            await self._write_rest(writer)
            # The traceback is for whoever wrote the strategy; the error itself is told when the process ends.
            if error.__cause__ is not None:
                _log.error("the strategy has raised an error", strategy=name, exc_info=error.__cause__)
            raise
        finally:
            thread.close()
            await writer.close()

    async def _work(self, thread: WatchedThread, writer: TransactionalWriter, on_begun: Callable[[], None]) -> None:
        service, settings = self._service, self._service.settings
        service.health.set_ready(False, "reading what the strategy has done before")
        await service.unless_stopped(refuse_namesake(settings, self._instance))
        await service.unless_stopped(writer.start())
        beginning = await service.unless_stopped(find_beginning(settings, self._instance, self._since))
        service.health.set_ready(False, "reading the candles that the strategy begins with")
        caught_up = await catch_up(service, self._instance, beginning, self._store)
        try:
            first = caught_up.candles[0].close_time if caught_up.candles else caught_up.kept_from
            known = await service.unless_stopped(read_known(settings, self._instance, first))
            kept_from, began = caught_up.kept_from, caught_up.began
            make = partial(Desk, self._instance, began, known, kept_from=kept_from, go_on=thread.go_on)
            desk = self._desk = await self._finish(thread.call(make))
            await self._go_over(caught_up, desk, thread, writer)
            service.health.set_ready(True, "following the candles")
            _log.info(
                "following the candles",
                strategy=self._instance.name,
                group=self._instance.id,
                candles_before=len(caught_up.candles),
                signals_before=len(known),
            )
            caught_up.candles = ()
            on_begun()
            await self._follow(caught_up, desk, thread, writer)
        finally:
            await caught_up.feed.close()

    async def _go_over(
        self, caught_up: CaughtUp, desk: Desk, thread: WatchedThread, writer: TransactionalWriter
    ) -> None:
        """Let the strategy go over the candles that are there already, and write what its topic lacks."""
        # Should the process be killed before there is a signal, the next one must know where this one began.
        await self._write(writer, [], _progress(caught_up, desk, self._instance.place), caught_up.position)
        candles, feed = caught_up.candles, caught_up.feed
        for start in range(0, len(candles), AT_ONCE):
            some = [event_of(candle, feed.is_complete) for candle in candles[start : start + AT_ONCE]]
            await self._finish(thread.call(partial(desk.go_over, some, now_us())))
            progress, rest = _progress(caught_up, desk, self._instance.place), candles[start + AT_ONCE :][:1]
            if rest:  # candles of several series close at one time: that of the next one may not be done yet
                done = max(min(progress.done, rest[0].close_time - 1), progress.began)
                progress = Progress(progress.began, done, progress.place)
            await self._write(writer, desk.collect(), progress, caught_up.position)

    async def _follow(
        self, caught_up: CaughtUp, desk: Desk, thread: WatchedThread, writer: TransactionalWriter
    ) -> None:
        feed, empty = caught_up.feed, EmptySeries(self._service.health, caught_up.empty)
        ticked_s = time.monotonic()
        asked: tuple[int, dict[int, int]] | None = None
        while not self._service.stopping.is_set():
            items, position = await feed.more(TICK_S)
            self._service.health.beat()
            if items:
                empty.note(items)
                events = [event_of(item, feed.is_complete) for item in items]
                await self._finish(thread.call(partial(desk.take, events, now_us())))
            if time.monotonic() - ticked_s >= TICK_S:
                # Once all is read that stood in the topic by that time, as what is awaited may be among it. Whether
                # more has come since does not matter: of a market that never rests, something always has.
                asked = asked or (now_us(), feed.ends)
                time_us, ends = asked
                if not items or all(position.offsets.get(number, 0) >= end for number, end in ends.items()):
                    await self._finish(thread.call(partial(desk.tick, time_us)))
                    ticked_s, asked = time.monotonic(), None
            if desk.must_begin_anew:
                # Not committed, so the next beginning finds it, and goes over the candles from there on.
                raise _BeginAnewError("a candle was corrected that is older than those that the strategy keeps")
            progress, signals = _progress(caught_up, desk, self._instance.place), desk.collect()
            if signals or (self._committed != (progress, position) and self._is_time_to_commit()):
                await self._write(writer, signals, progress, position)

    async def _write_rest(self, writer: TransactionalWriter) -> None:
        """Write the signals that the strategy gave before it failed; the next start finds them there."""
        if self._desk is not None and (signals := self._desk.collect()):
            await self._finish(writer.write([message_of(signal) for signal in signals]))

    def _is_time_to_commit(self) -> bool:
        return time.monotonic() - self._committed_s >= COMMIT_S

    async def _write(
        self, writer: TransactionalWriter, signals: Sequence[Signal], progress: Progress, position: Position
    ) -> None:
        await self._finish(
            writer.write([message_of(signal) for signal in signals], committed_places(progress, position))
        )
        self._committed, self._committed_s = (progress, position), time.monotonic()
        written_us = now_us()
        for signal in signals:
            if signal.close_time >= self._began_us:
                metrics.strategy_signal_delay_seconds.observe(max(written_us - signal.close_time, 0) / 1e6)
            metrics.strategy_signals.labels(signal.status).inc()
            if signal.status == "active" and not signal.all_closed:
                metrics.strategy_incomplete_signals.inc()
        metrics.strategy_close_timestamp_seconds.set(progress.done / 1_000_000)
        if signals:
            metrics.strategy_delay_seconds.set(now_us() / 1_000_000 - signals[-1].close_time / 1_000_000)

    async def _finish(self, work: Awaitable[_T]) -> _T:
        """The result of a part of a step; the process is alive meanwhile.

        Raises StoppedError, and lets go of the work, when that is not done for a while after the process is to stop.
        """
        service = self._service
        working = asyncio.ensure_future(work)
        stopped_s: float | None = None
        try:
            while not working.done():
                await asyncio.wait({working}, timeout=BEAT_S)
                service.health.beat()
                if service.stopping.is_set():
                    stopped_s = stopped_s or time.monotonic()
                    if time.monotonic() - stopped_s > STOP_S:
                        raise StoppedError
            return await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


def _progress(caught_up: CaughtUp, desk: Desk, place: str) -> Progress:
    return Progress(caught_up.began, max(desk.done, caught_up.redo_from - 1), place)
