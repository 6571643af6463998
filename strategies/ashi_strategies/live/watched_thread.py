"""The thread that a strategy runs in, so that whoever waits for it can tell where it stands when it does not return."""

from __future__ import annotations

import asyncio
import faulthandler
import queue
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

_ARM_EVERY_S: Final = 1.0


class WatchedThread:
    """Makes calls one after another in a thread of its own, and knows since when the one at hand runs.

    The thread is a daemon: a call that never returns does not keep the process from ending.
    """

    def __init__(self, name: str, *, last_resort_s: float) -> None:
        """A call that has taken so long ends the process then and there, with the tracebacks of all threads on stderr.

        Only where nobody else can: while a library keeps Python's lock (GIL), no other thread runs, and nothing of this
        process answers.
        """
        self._last_resort_s = last_resort_s
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._began_s: float | None = None
        self._armed_s = 0.0
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def running_s(self) -> float:
        """Since when the call at hand, or the part of it that `go_on` has begun, runs; 0 where none does."""
        began_s = self._began_s
        return 0.0 if began_s is None else time.monotonic() - began_s

    def go_on(self) -> None:
        """Say, from within a call, that a part of it is done: what it takes is counted anew."""
        now_s = self._began_s = time.monotonic()
        if now_s - self._armed_s >= _ARM_EVERY_S:
            faulthandler.dump_traceback_later(self._last_resort_s, exit=True)
            self._armed_s = now_s

    def where(self) -> str:
        """Where the thread stands now: its innermost calls."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return "".join(traceback.format_stack(frame)[-4:]).rstrip() if frame is not None else "(it has ended)"

    async def call(self, work: Callable[[], _T]) -> _T:
        """The result of `work`, or what it raises. Cancelled, it is still made to its end."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[_T] = loop.create_future()

        def settle(set_: Callable[[Any], None], value: Any) -> None:
            if not result.done():
                set_(value)

        def run() -> None:
            self.go_on()
            set_: Callable[[Any], None] = result.set_result
            value: Any
            try:
                value = work()
            except BaseException as error:
                set_, value = result.set_exception, error
            self._began_s = None  # before anybody learns that it has ended
            loop.call_soon_threadsafe(settle, set_, value)

        self._calls.put(run)
        return await result

    def close(self) -> None:
        """End the thread, after the call at hand."""
        faulthandler.cancel_dump_traceback_later()
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            faulthandler.cancel_dump_traceback_later()
            self._armed_s = 0.0
