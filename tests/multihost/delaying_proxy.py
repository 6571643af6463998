"""A proxy that hands on what comes after a delay, both ways: `python delaying_proxy.py PORT TO_HOST TO_PORT SECONDS`.

The kernel's own way (netem) is not in every kernel. Bytes keep their order and their rate; only the way gets longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

MOST_BYTES = 1 << 16
MOST_PIECES = 1_000
"""In flight one way on one connection; then the sender has to wait."""


async def hand_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, delay_s: float) -> None:
    """Until one of the two has ended."""
    loop = asyncio.get_running_loop()
    on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MOST_PIECES)

    async def arrive() -> None:
        while True:
            due, piece = await on_the_way.get()
            await asyncio.sleep(due - loop.time())
            if not piece:
                return
            target.write(piece)
            await target.drain()

    arriving = asyncio.create_task(arrive())
    try:
        while not arriving.done():
            piece = await source.read(MOST_BYTES)
            await on_the_way.put((loop.time() + delay_s, piece))
            if not piece:
                break
        await arriving
    finally:
        arriving.cancel()


async def serve(port: int, host: str, to_port: int, delay_s: float) -> None:
    """For ever."""

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        with contextlib.suppress(OSError):
            there, to_there = await asyncio.open_connection(host, to_port)
            writers.append(to_there)
            ways = [hand_on(reader, to_there, delay_s), hand_on(there, writer, delay_s)]
            tasks = [asyncio.create_task(way) for way in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for each in writers:
            each.close()

    async with await asyncio.start_server(connect, "0.0.0.0", port) as server:
        print("serving", flush=True)  # noqa: T201 - whoever has started it waits for this
        await server.serve_forever()


if __name__ == "__main__":
    own, to, other, seconds = sys.argv[1:]
    asyncio.run(serve(int(own), to, int(other), float(seconds)))
