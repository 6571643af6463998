"""Reading ahead in a thread: everything in its order, no more than so many parts ahead, and an end in every case."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator

import pytest

from ashi_ingest.recording.read_ahead import MOST_AHEAD, ReadAhead


class Source:
    """Numbers, and what became of the generator that gives them."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.given = 0
        self.closed = threading.Event()
        self.threads: set[int] = set()
        self._count = count
        self._error = error

    def numbers(self) -> Generator[int]:
        try:
            for number in range(self._count):
                self.threads.add(threading.get_ident())
                self.given += 1
                yield number
            if self._error is not None:
                raise self._error
        finally:
            self.closed.set()


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def test_all_parts_come_in_their_order_from_another_thread() -> None:
    async def main() -> None:
        source = Source(100)
        parts = ReadAhead(source.numbers())
        assert [part async for part in parts] == [*range(100)]
        await parts.close()
        assert source.closed.is_set()
        assert len(source.threads) == 1
        assert threading.get_ident() not in source.threads

    asyncio.run(main())


def test_an_error_comes_after_all_that_was_read_before_it() -> None:
    async def main() -> None:
        source = Source(10, ZeroDivisionError("damaged"))
        parts = ReadAhead(source.numbers())
        assert [await anext(parts) for _ in range(10)] == [*range(10)]
        with pytest.raises(ZeroDivisionError, match="damaged"):
            await anext(parts)
        await parts.close()
        assert source.closed.is_set()

    asyncio.run(main())


def test_no_more_is_read_ahead_than_that_and_who_stops_ends_the_thread() -> None:
    async def main() -> None:
        source = Source(1_000)
        parts = ReadAhead(source.numbers())
        assert await anext(parts) == 0
        await until(lambda: source.given == 1 + MOST_AHEAD + 1)
        await parts.close()
        assert source.closed.is_set()
        assert source.given == 1 + MOST_AHEAD + 1, "the last of them waited for room"

    asyncio.run(main())
