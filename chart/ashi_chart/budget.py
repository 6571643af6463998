"""A bound on what large messages, together, may have in memory."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Budget:
    """So many bytes; whoever makes something large waits until there is room, in turn."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._left = total
        self._room = asyncio.Condition()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Have `size` bytes of it within the block; something larger than all of it waits until it is alone."""
        size = min(size, self._total)
        async with self._room:
            await self._room.wait_for(lambda: self._left >= size)
            self._left -= size
        try:
            yield
        finally:
            self._left += size
            async with self._room:
                self._room.notify_all()
