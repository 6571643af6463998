"""The same readers without asyncio: `with` and `for`, by a thread of their own in which asyncio runs.

What is read, in which order, and what of it is handed out is decided where it always is: only who waits is another one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from ashi.contracts.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_JOIN_S: Final = 10.0
"""So long the thread may take to end; it never keeps a program from ending."""


class EitherWay(ABC, Generic[_Item]):
    """An asynchronous iterator and context, `async with` and `async for`, that is also one that blocks.

    >>> with read_candles("kafka:9092", symbols=["bitflyer:BTC_JPY"], timeframes=["1m"]) as candles:
    ...     for candle in candles:
    ...         ...

    Each is read in one of the two ways. Not for several threads at once; and while it waits in a coroutine everything
    else stands still there, so within asyncio it is `async for`.
    """

    _thread: _LoopThread | None = None
    _is_ended = False

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Connect."""

    @abstractmethod
    async def __anext__(self) -> _Item:
        """What comes next. To stop waiting for it loses nothing."""

    @abstractmethod
    async def aclose(self) -> None:
        """Disconnect. May be called at any time, and again."""

    @abstractmethod
    def _is_connected(self) -> bool:
        """Whether it has been connected, in either way."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        try:
            self._run(self.__aenter__())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _Item:
        item = self._wait(None)
        if item is None:
            raise StopIteration
        return item

    def next_within(self, seconds: float) -> _Item | None:
        """What comes next, without asyncio; None where nothing came in that time, or nothing will come any more."""
        return self._wait(time.monotonic() + seconds)

    def close(self) -> None:
        """Disconnect, without asyncio. May be called at any time, and again; the iteration is over then."""
        if self._is_ended:
            return
        self._run(self.aclose())
        self._is_ended = True
        if self._thread is not None:
            self._thread.stop()

    def _wait(self, deadline: float | None) -> _Item | None:
        """What comes next; None where nothing has come by then (of the monotonic clock), or nothing will."""
        if self._is_ended:
            return None
        taken: deque[_Item] = self.__dict__.setdefault("_taken_out", deque())

        async def take() -> None:
            taken.append(await self.__anext__())

        try:
            if not taken:  # else whoever was interrupted while it came has not got it
                self._run(take(), deadline)
        except StopAsyncIteration:
            self.close()
        return taken.popleft() if taken else None

    def _run(self, work: Coroutine[Any, Any, _Result], deadline: float | None = None) -> _Result | None:
        """The result of some work; None where it was stopped as it took too long."""
        if self._thread is None:
            if self._is_connected():
                work.close()
                raise UsageError("this is read by `async with` and `async for` already: each is read in one way")
            self._thread = _LoopThread()
            weakref.finalize(self, self._thread.stop)
        return self._thread.run(work, deadline)

    def _check_way(self) -> None:
        """Raise UsageError in a coroutine of others where it is `for` by which this is read."""
        if self._thread is not None and not self._thread.is_here():
            raise UsageError("this is read by `with` and `for` already: each is read in one way")


class _LoopThread:
    """An event loop in a thread of its own, which does one thing after another for whoever waits outside of it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="ashi-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _Result], deadline: float | None) -> _Result | None:
        """See `EitherWay._run`. Who is interrupted while he waits (Ctrl-C) has stopped the work when that is raised."""
        doing = _by(work, deadline)
        future = asyncio.run_coroutine_threadsafe(doing, self._loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                concurrent.futures.wait([asyncio.run_coroutine_threadsafe(_settle(), self._loop)], _JOIN_S)
            raise

    def is_here(self) -> bool:
        """Whether the code that asks runs in this loop."""
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """End the loop and its thread. May be called again."""
        if self._thread.is_alive() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            if not self.is_here():
                self._thread.join(_JOIN_S)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(_settle())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


async def _by(work: Coroutine[Any, Any, _Result], deadline: float | None) -> _Result | None:
    try:
        async with asyncio.timeout(None if deadline is None else max(deadline - time.monotonic(), 0)) as bound:
            return await work
    except TimeoutError:
        if not bound.expired():
            raise
        return None


async def _settle() -> None:
    """Wait for all that has been cancelled."""
    cancelled = [task for task in asyncio.all_tasks() if task.cancelling()]
    await asyncio.gather(*cancelled, return_exceptions=True)
