"""The network of rehearsals does what that of this machine does."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from network_in_memory import HOST
from shared_time import run_virtually
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]
RUNS: dict[str, Run] = {"this machine": lambda main: asyncio.run(main()), "memory": run_virtually}
LARGE = b"x" * (16 << 20)


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest) -> Run:
    return RUNS[request.param]


class Side(asyncio.Protocol):
    """Remembers what it was told."""

    transport: asyncio.Transport

    def __init__(self, *, stays_open: bool = False) -> None:
        self.received = b""
        self.told: list[str] = []
        self.lost = asyncio.Event()
        self._stays_open = stays_open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.told.append("end")
        return self._stays_open

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.told.append(type(error).__name__)
        self.lost.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110  (of whatever it was told)
                await asyncio.sleep(0.001)


async def connected(*, stays_open: bool = False) -> tuple[asyncio.AbstractServer, Side, Side]:
    """Somebody who listens, who has connected, and whom he is connected to."""
    loop = asyncio.get_running_loop()
    accepted: asyncio.Queue[Side] = asyncio.Queue()

    def accept() -> Side:
        side = Side(stays_open=stays_open)
        accepted.put_nowait(side)
        return side

    server = await loop.create_server(accept, HOST, 0)
    _, near = await loop.create_connection(lambda: Side(stays_open=stays_open), HOST, port_of(server))
    far = await accepted.get()
    await near.until(lambda: hasattr(far, "transport"))
    return server, near, far


def port_of(server: asyncio.AbstractServer) -> int:
    port: int = server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    return port


def test_what_is_written_comes_whole_and_in_order_and_the_end_after_it(run: Run) -> None:
    async def main() -> Any:
        _, near, far = await connected()
        for number in range(1000):
            near.transport.write(b"%d " % number)
        near.transport.writelines([b"the ", b"end"])
        near.transport.close()
        near.transport.write(b"nobody reads this")
        await near.lost.wait()
        await far.lost.wait()
        return far.received, far.told, near.told

    assert run(main) == (
        b"".join(b"%d " % number for number in range(1000)) + b"the end",
        ["end", "NoneType"],
        ["NoneType"],
    )


def test_who_has_ended_may_still_be_answered(run: Run) -> None:
    async def main() -> Any:
        _, near, far = await connected(stays_open=True)
        near.transport.write(b"question")
        near.transport.write_eof()
        await far.until(lambda: far.told == ["end"])
        far.transport.write(b"answer")
        far.transport.close()
        await near.until(lambda: near.told == ["end"])
        near.transport.close()
        await near.lost.wait()
        return far.received, far.told, near.received, near.told

    assert run(main) == (b"question", ["end", "NoneType"], b"answer", ["end", "NoneType"])


def test_a_connection_that_is_reset_is_an_error_to_the_other_side(run: Run) -> None:
    async def main() -> Any:
        _, near, far = await connected()
        far.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.transport.abort()
        await near.lost.wait()
        await far.lost.wait()
        return near.told, far.told

    assert run(main) == (["ConnectionResetError"], ["NoneType"])


def test_a_connection_that_is_aborted_is_at_its_end_to_the_other_side(run: Run) -> None:
    async def main() -> Any:
        _, near, far = await connected()
        far.transport.abort()
        await near.lost.wait()
        return near.told

    assert run(main) == ["end", "NoneType"]


def test_what_is_not_read_when_a_connection_is_closed_is_an_error_to_who_wrote_it(run: Run) -> None:
    async def main() -> Any:
        _, near, far = await connected()
        far.transport.pause_reading()
        near.transport.write(b"not read")
        await asyncio.sleep(0.05)
        far.transport.close()
        await near.lost.wait()
        return near.told, far.received

    assert run(main) == (["ConnectionResetError"], b"")


def test_who_writes_to_somebody_who_is_gone_is_told(run: Run) -> None:
    async def main() -> Any:
        _, near, far = await connected(stays_open=True)
        far.transport.close()
        await near.until(lambda: near.told == ["end"])
        for _ in range(20):
            near.transport.write(b"hello?")
            await asyncio.sleep(0.01)
        await near.lost.wait()
        return near.told[0], near.told[1] in {"ConnectionResetError", "BrokenPipeError"}

    assert run(main) == ("end", True)


def test_a_writer_is_held_up_by_a_reader_who_does_not_read(run: Run) -> None:
    async def main() -> Any:
        _, near, far = await connected()
        far.transport.pause_reading()
        assert not far.transport.is_reading()
        near.transport.write(LARGE)
        await asyncio.sleep(0.05)
        assert near.told == ["pause"]
        assert near.transport.get_write_buffer_size() > 1 << 20
        assert far.received == b""
        far.transport.resume_reading()
        await far.until(lambda: len(far.received) == len(LARGE))
        await near.until(lambda: near.told == ["pause", "resume"])
        assert near.transport.get_write_buffer_size() == 0
        return far.received == LARGE

    assert run(main)


def test_nobody_connects_where_nobody_listens_any_more_and_connections_stay(run: Run) -> None:
    async def main() -> Any:
        server, near, far = await connected()
        port = port_of(server)
        with pytest.raises(OSError, match="in use"):
            await asyncio.get_running_loop().create_server(Side, HOST, port)
        server.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.get_running_loop().create_connection(Side, HOST, port)
        near.transport.write(b"still here")
        await far.until(lambda: far.received == b"still here")
        again = await asyncio.get_running_loop().create_server(Side, HOST, port)
        names = near.transport.get_extra_info("sockname"), near.transport.get_extra_info("peername")
        assert names == (far.transport.get_extra_info("peername"), far.transport.get_extra_info("sockname"))
        assert names[1] == (HOST, port)
        for each in (near, far):
            each.transport.abort()
        again.close()

    run(main)


async def serving(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> tuple[web.AppRunner, str]:
    application = web.Application()
    application.router.add_get("/", handler)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    return runner, f"{HOST}:{runner.addresses[0][1]}"


def test_http_and_websockets_go_over_it(run: Run) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        if "Upgrade" not in request.headers:
            return web.Response(body=LARGE)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"{message.data}?")
            await socket.close(code=4001)
        return socket

    async def main() -> Any:
        runner, address = await serving(handle)
        async with aiohttp.ClientSession(trust_env=True) as session, session.get(f"http://{address}/") as response:
            body = await response.read()
        async with connect(f"ws://{address}/") as connection:
            await connection.send("hello")
            answer = await connection.recv()
            with pytest.raises(ConnectionClosed):
                await connection.recv()
        await runner.cleanup()
        return body == LARGE, answer, connection.close_code

    assert run(main) == (True, "hello?", 4001)
