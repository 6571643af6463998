"""An event loop whose time passes only while everything waits: hours of sleeping take no time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Its clock is moved on to the next timer instead of being waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual_s = 0.0
        self._wait = self._selector.select  # type: ignore[attr-defined]
        self._selector.select = self._skip  # type: ignore[attr-defined]

    def time(self) -> float:
        """Seconds since it began."""
        return self._virtual_s

    def _skip(self, timeout: float | None) -> Any:
        if timeout is None:
            raise RuntimeError("everything waits, and for no time: this would never end")
        self._virtual_s += timeout
        return self._wait(0)


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
