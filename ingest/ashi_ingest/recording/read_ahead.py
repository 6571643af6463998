"""Reading in a thread of its own, some parts ahead of what is done with them."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator

MOST_AHEAD: Final = 4
"""So many parts may have been read and not be taken: enough that the thread need not wait for whoever takes them, who
waits for it, and for the interpreter, a part at a time."""

TURN_S: Final = 0.0005
"""How long the thread may keep the interpreter when the loop wants it. With Python's 5 ms each answer of Kafka would
wait for that long, and the next batch of the partition for the answer."""

PartT = TypeVar("PartT")


class ReadAhead(Generic[PartT]):
    """What a generator gives, in its order. Iterate over it, then close it, however that has ended."""

    def __init__(self, parts: Generator[PartT]) -> None:
        """`parts` goes on in the thread from now on; `close` closes it."""
        self._loop = asyncio.get_running_loop()
        self._parts = parts
        self._room = threading.Semaphore(MOST_AHEAD)
        self._read_parts: asyncio.Queue[PartT | None] = asyncio.Queue()
        self._is_closed = False
        self._turn_s = sys.getswitchinterval()
        sys.setswitchinterval(min(TURN_S, self._turn_s))
        self._reading = asyncio.create_task(asyncio.to_thread(self._read))

    def __aiter__(self) -> ReadAhead[PartT]:
        """Itself: it can be iterated over once."""
        return self

    async def __anext__(self) -> PartT:
        """The next part. Raises what the generator raises, once all that it gave before has been taken."""
        part = await self._read_parts.get()
        if part is None:
            await asyncio.shield(self._reading)
            raise StopAsyncIteration
        self._room.release()
        return part

    async def close(self) -> None:
        """Return when the thread has ended, and the generator with it."""
        self._is_closed = True
        self._room.release()
        sys.setswitchinterval(self._turn_s)
        await asyncio.gather(self._reading, return_exceptions=True)

    def _read(self) -> None:
        try:
            for part in self._parts:
                self._room.acquire()
                if self._is_closed:
                    break
                self._loop.call_soon_threadsafe(self._read_parts.put_nowait, part)
        finally:
            self._parts.close()
            self._loop.call_soon_threadsafe(self._read_parts.put_nowait, None)
