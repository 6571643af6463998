"""The one thread that a connection is used in, so that the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class OneThread:
    """A thread that starts with the first call and runs one call after the other."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, function: Callable[..., _T], *args: object) -> _T:
        """What the function gives when it is called in the thread."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    async def end(self, last: Callable[[], None]) -> None:
        """Call `last` in the thread and end it, if it has been started."""
        if self._pool is not None:
            await self.run(last)
            self._pool.shutdown(wait=False)
            self._pool = None
