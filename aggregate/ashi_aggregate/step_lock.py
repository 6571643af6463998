"""Steps that exclude each other, each of which is done whole or is the last."""

from __future__ import annotations

import asyncio
from types import TracebackType


class StepLock:
    """A lock that remembers when a step was broken off, by an error or because its task was cancelled.

    What a step has closed it may not have sent by then, and what it counts as written it may not have written. Whoever
    would go on from there makes durable what is not so.

    Attributes:
        is_broken: a step was broken off, and the state is still the one that it left.

    """

    def __init__(self) -> None:
        self.is_broken = False
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.is_broken = self.is_broken or kind is not None
        self._lock.release()

    def begin_anew(self) -> None:
        """The state has been let go, with all that was broken off."""
        self.is_broken = False
