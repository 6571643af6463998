"""What a worker does for its store beside writing, at its times: see `Store.upkeep`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import StorageError
from ashi.runtime.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

SPREAD: Final = 0.1
"""By up to so much of its interval a chore begins later, so that several workers do not begin at once."""

GRACE_S: Final = 3.0
"""How long a chore may go on when the worker stops; then it is left undone, as by a kill."""

_threads: Final[set[threading.Thread]] = set()

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Chore:
    """Something that is to be done again and again.

    Attributes:
        name: for people: `compact`.
        interval_s: it is done at the multiples of this since the epoch, so a restart does not put it off.
        do: does it, in a thread, and says in sentences what was done. It ends soon after the event is set, and may then
            leave the rest for the next time; after `GRACE_S` it may be cut short anywhere. Raises StorageError.

    """

    name: str
    interval_s: float
    do: Callable[[threading.Event], list[str]]


async def run_chore(
    chore: Chore, sink: str, *, now_s: Callable[[], float] = time.time, spread: Callable[[], float] = random.random
) -> None:
    """Do it until cancelled. What fails is logged and tried again at its next time: writing goes on."""
    while True:
        now = now_s()
        due = (now // chore.interval_s + 1 + SPREAD * spread()) * chore.interval_s
        await asyncio.sleep(due - now)
        stopping = threading.Event()
        began = time.monotonic()
        working = _in_thread(chore, stopping)
        try:
            done = await asyncio.shield(working)
        except StorageError as error:
            _log.warning(f"{chore.name} failed, it is tried again at its next time", sink=sink, reason=str(error))
        else:
            for sentence in done:
                _log.info(f"{chore.name}: {sentence}", sink=sink, seconds=round(time.monotonic() - began, 3))
        finally:
            stopping.set()
            if not working.done():
                await asyncio.wait([working], timeout=GRACE_S)
                if not working.done():
                    _log.warning(f"{chore.name} is cut short by the stop, the rest is for its next time", sink=sink)


def _in_thread(chore: Chore, stopping: threading.Event) -> asyncio.Future[list[str]]:
    """Do it in a thread that the process need not wait for, as it must for asyncio's: no driver can be stopped."""
    loop = asyncio.get_running_loop()
    working: asyncio.Future[list[str]] = loop.create_future()
    working.add_done_callback(lambda _: working.cancelled() or working.exception())  # after a stop nobody else asks

    def settle(done: list[str], error: BaseException | None) -> None:
        if working.cancelled():
            return
        if error is None:
            working.set_result(done)
        else:
            working.set_exception(error)

    def work() -> None:
        done: list[str] = []
        failed: BaseException | None = None
        try:
            done = chore.do(stopping)
        except BaseException as error:  # whoever awaits it gets it
            failed = error
        _threads.discard(threading.current_thread())  # before anybody hears that it is done, and may end the process
        with contextlib.suppress(RuntimeError):  # the loop has ended: left behind at a stop
            loop.call_soon_threadsafe(settle, done, failed)

    thread = threading.Thread(target=work, name=chore.name, daemon=True)
    _threads.add(thread)
    thread.start()
    return working


def exit_past_chores(status: int) -> None:
    """End the process then and there, if a chore that was cut short is still at work; else do nothing.

    An interpreter that ends while the lake's driver is at work in a thread crashes more often than not.
    """
    if _threads:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
