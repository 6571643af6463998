"""The life of a worker process: logs, health, one main coroutine, and an end that comes whatever hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from ashi import __version__
from ashi.contracts.errors import EXIT_INTERRUPTED, AshiError, ResourceError
from ashi.contracts.topics import TRADES
from ashi.runtime.descriptors import FEWEST, descriptors_behind, prepare_descriptors, require_descriptors
from ashi.runtime.hanging import what_hangs
from ashi.runtime.health import Health, serve
from ashi.runtime.kafka.authentication.tls import certificate_expiries, certificates_are_behind
from ashi.runtime.kafka.cluster.offsets import last_append_time
from ashi.runtime.kafka.connections.errors import as_broker_error, is_refused_for_its_time, leaves
from ashi.runtime.logs import configure_logging, flush_logs, get_logger
from ashi.runtime.metrics.common import (
    build_info,
    certificate_expiry_timestamp_seconds,
    certificate_files_behind,
)
from ashi.runtime.process_age import process_age_s
from ashi.runtime.settings.environment import Settings, unknown_variables
from ashi.runtime.signals import stop_signals

if TYPE_CHECKING:
    from types import FrameType

BEAT_S: Final = 0.1
"""How often a process that waits says that it is alive, seconds."""
SHUTDOWN_BOUND_S: Final = 20.0
"""How long the work in hand may take to end; Kubernetes kills after 30 s by default."""
EXIT_HUNG: Final = 70
CLOCK_BOUND_S: Final = 5.0
"""How long a worker whose records were refused for their time asks Kafka what its time is, seconds."""
DESCRIPTORS_INTERVAL_S: Final = 5.0
"""How often it is looked whether file descriptors are left, seconds. Two looks in a row tell a moment from a state."""

_log = get_logger(__name__)

_T = TypeVar("_T")


class StoppedError(Exception):
    """The process was told to stop while it waited for something. Nothing is lost: the next start begins there."""


@dataclass(frozen=True, slots=True)
class Service:
    """What `main` of a worker gets.

    Attributes:
        name: of the process, as in the logs.
        settings: as read at start.
        health: to beat, and to say when it is ready.
        stopping: set on SIGTERM, SIGINT and SIGHUP; `main` then ends its work in hand and returns.

    """

    name: str
    settings: Settings
    health: Health = field(default_factory=Health)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def pause(self, seconds: float, *, alive: bool = True) -> None:
        """Wait so long, or until the process is told to stop.

        Whoever waits for something to get on, and would not notice when it hangs, is not `alive` by waiting.
        """
        if alive:
            self.health.beat()
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return

    async def unless_stopped(self, work: Awaitable[_T]) -> _T:
        """The result of `work`, which may take long (joining a group waits for its members); alive meanwhile.

        Raises StoppedError, and cancels the work, when the process is told to stop before.
        """
        working = asyncio.ensure_future(work)
        stopping = asyncio.create_task(self.stopping.wait())
        try:
            while not working.done():
                if stopping.done():
                    raise StoppedError
                await asyncio.wait({working, stopping}, timeout=BEAT_S, return_when=asyncio.FIRST_COMPLETED)
                self.health.beat()
            return await working
        finally:
            for task in (working, stopping):
                task.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)


async def run_until_first_ends(*parts: Coroutine[None, None, object]) -> None:
    """Run all until one ends, then cancel the others and wait for them.

    Raises what ended it; what the others fail of while they are cancelled is not raised.
    """
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()


Main = Callable[[Service], Awaitable[None]]


def run_service(name: str, settings: Settings, main: Main, *, shutdown_bound_s: float = SHUTDOWN_BOUND_S) -> int:
    """Run `main` to its end and give the exit status of the process.

    0 when it returns; that of the error when it raises an AshiError; 1, with the traceback logged, for any other.
    After SIGTERM, SIGINT or SIGHUP, and after `main`, everything must have ended within `shutdown_bound_s` seconds,
    else the process exits with 70 then and there. A second SIGINT exits at once.
    """
    configure_logging(settings, name)
    build_info.labels(name.partition("-")[0], __version__).set(1)
    for warning in unknown_variables():
        _log.warning(warning)
    watchdog = threading.Timer(shutdown_bound_s, _exit_hung, [shutdown_bound_s])
    watchdog.daemon = True
    try:
        prepare_descriptors()
        return asyncio.run(_run(Service(name, settings), main, watchdog))
    except (OSError, ResourceError) as error:  # an event loop needs some descriptors itself
        if (status := _report(error, settings)) is None:
            raise
        return status
    finally:
        watchdog.cancel()
        with suppress(OSError):
            flush_logs()


async def _run(service: Service, main: Main, watchdog: threading.Timer) -> int:
    watchdog.args = [*watchdog.args, asyncio.get_running_loop()]
    with _stop_on_signals(service, watchdog):
        try:
            async with serve(service.settings, service.health) as address:
                age_s = process_age_s()
                took = {} if age_s is None else {"process_s": round(age_s, 2)}
                _log.info("started", metrics=f"{address}/metrics", **took)
                await _run_while_descriptors_last(service, main, watchdog)
        except BaseException as error:
            status = _report(error, service.settings, await _explain_clock(error, service.settings))
            if status is None:
                raise
            return status
        finally:
            _start_once(watchdog)  # what is left to clean up may hang as well
            service.health.set_ready(False, "stopped")
        _log.info("stopped")
        return 0


async def _run_while_descriptors_last(service: Service, main: Main, watchdog: threading.Timer) -> None:
    """Run `main`, and stop it as a signal would when nothing more can be opened. Raises ResourceError then.

    What its libraries do when they cannot connect is not always an error: some of their parts end, and nobody hears
    of it.
    """
    lacking: ResourceError | None = None

    async def watch() -> None:
        nonlocal lacking
        seen = False
        while True:
            await asyncio.sleep(DESCRIPTORS_INTERVAL_S)
            certificate_files_behind.set(certificates_are_behind())
            for kind, until_s in certificate_expiries().items():
                certificate_expiry_timestamp_seconds.labels(kind).set(until_s)
            try:
                require_descriptors(FEWEST)
                seen = False
            except ResourceError as error:
                if not seen:
                    seen = True
                    continue
                lacking = error
                break
        _log.warning("stopping, file descriptors have run out")
        service.health.set_ready(False, str(lacking))
        _start_once(watchdog)
        service.stopping.set()

    watching = asyncio.create_task(watch())
    try:
        await main(service)
    finally:
        watching.cancel()
    if lacking is not None:
        raise lacking


@contextmanager
def _stop_on_signals(service: Service, watchdog: threading.Timer) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    interrupted = False

    def stop(number: int) -> None:
        _log.info("stopping", signal=signal.Signals(number).name)
        service.health.set_ready(False, "stopping")
        service.stopping.set()

    # Python's own handlers, not the loop's: they also run while a coroutine keeps the loop busy. They do not log,
    # because they may interrupt a log line that is being written.
    def handle(number: int, _: FrameType | None) -> None:
        nonlocal interrupted
        if number == signal.SIGINT and interrupted:
            os._exit(EXIT_INTERRUPTED)
        interrupted = interrupted or number == signal.SIGINT
        _start_once(watchdog)
        loop.call_soon_threadsafe(stop, number)

    before = {number: signal.signal(number, handle) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start_once(watchdog: threading.Timer) -> None:
    if watchdog.ident is None:
        watchdog.start()


def _exit_hung(bound_s: float, loop: asyncio.AbstractEventLoop | None = None) -> None:
    try:
        waits = {} if loop is None else what_hangs(loop)
        _log.error("shutdown hangs, exiting without it", bound_s=bound_s, exit_status=EXIT_HUNG, waits=waits)
        flush_logs()
    finally:  # stderr may be full, or a terminal that is gone
        os._exit(EXIT_HUNG)


async def _explain_clock(error: BaseException, settings: Settings) -> str:
    """Whose clock says what, where Kafka refused records for their time; else nothing."""
    if not any(is_refused_for_its_time(leaf) for leaf in leaves(error)):
        return ""
    try:
        async with asyncio.timeout(CLOCK_BOUND_S):
            appended_ms = await last_append_time(settings, TRADES)
    except Exception as reason:  # what Kafka refused must be told whatever fails here
        return f" (what Kafka's clock says cannot be found out: {reason!r})"
    if appended_ms is None:
        return ""
    ahead = timedelta(seconds=round(time.time() - appended_ms / 1000))
    distance = f"at most {ahead} (h:mm:ss) ahead" if ahead > timedelta() else f"{-ahead} (h:mm:ss) behind"
    return (
        f". Kafka's clock said {datetime.fromtimestamp(appended_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC when the newest "
        f"trade came: this machine's is {distance}"
    )


def _report(error: BaseException, settings: Settings, remark: str = "") -> int | None:
    """Log why `main` failed and give the exit status; None for what is not a failure of the work (SystemExit)."""
    causes = list(leaves(error))
    if isinstance(error, Exception) and (lacking := next(filter(None, map(descriptors_behind, causes)), None)):
        first = causes[0]
        _log.error(lacking, error=first.logged_as() if isinstance(first, AshiError) else type(first).__name__)
        return max(leaf.exit_status if isinstance(leaf, AshiError) else 1 for leaf in causes)
    expected = [leaf if isinstance(leaf, AshiError) else as_broker_error(leaf, settings) for leaf in causes]
    if all(expected):
        for leaf in expected:
            assert leaf is not None  # noqa: S101
            _log.error(str(leaf) + remark, error=leaf.logged_as())
        return max(leaf.exit_status for leaf in expected if leaf is not None)
    if not isinstance(error, (Exception, asyncio.CancelledError)):
        return None
    _log.error("failed unexpectedly; please report this", exc_info=error)
    return 1
