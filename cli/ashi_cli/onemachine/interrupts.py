"""Ctrl-C and SIGTERM for commands that have children: noticed everywhere, acted on where it is safe."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from types import FrameType, TracebackType

_T = TypeVar("_T")

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal told this process to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)

    @property
    def exit_status(self) -> int:
        """What shells expect of a process that a signal has ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal


def interruptible(work: Callable[[Interrupts], int]) -> int:
    """The exit status of `work`, or that of a signal which has ended it; then nothing of it is left running."""
    with Interrupts() as interrupts:
        try:
            return work(interrupts)
        except Interrupted as interrupted:
            print(f"stopped by {interrupted.signal.name}; nothing is left running", file=sys.stderr)
            return interrupted.exit_status


class Interrupts:
    """While it is entered, the first of SIGINT, SIGTERM and SIGHUP raises Interrupted in the main thread.

    Inside `run` it cancels the coroutine first, because an exception out of a signal handler can get lost in an
    event loop; inside `held` it waits for the end of the block. Later signals do nothing: stopping has a bound.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._held = False
        self._cancel: Callable[[], object] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            # Python knows no handler that was set by another language. What was ignored when we were started stays so:
            # SIGHUP by nohup, SIGINT by a script's `ashi demo &`, which Ctrl-C at the script's terminal must not end.
            if signal.getsignal(number) not in (None, signal.SIG_IGN):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def answered(self) -> None:
        """The signal that came has done what it was for; the next one ends the command."""
        self._number = None

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._number is not None:
            return
        self._number = number
        if self._cancel is not None:
            self._cancel()
        if not self._held:
            raise Interrupted(number)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Finish the block first. Raises Interrupted at its end if a signal came, unless the block itself raised."""
        outer, self._held = self._held, True
        came_before = self._number is not None
        try:
            yield
        finally:
            self._held = outer
        if self._number is not None and not came_before and not outer:
            raise Interrupted(self._number)

    def run(self, main: Coroutine[Any, Any, _T]) -> _T:
        """`asyncio.run` that a signal ends. Raises Interrupted, or what `main` raises."""

        async def body() -> _T:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None  # noqa: S101
            self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
            try:
                return await main
            finally:
                self._cancel = None

        with self.held(), contextlib.suppress(asyncio.CancelledError):
            return asyncio.run(body())
        raise AssertionError("cancelled by nobody")  # pragma: no cover
