"""Connections that are no pages: they cost little, and are ended when nothing comes of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from chart_server import serving
from yarl import URL

from ashi_chart.pages import connections

BOUND_S = 60
FILE = "static/vendor/lightweight-charts/lightweight-charts.js"


@pytest.fixture(autouse=True)
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LOOK_S", 0.02)


@asynccontextmanager
async def asking_nothing(address: str, sends: bytes = b"") -> AsyncIterator[asyncio.StreamReader]:
    """A connection over which nothing more than this is sent, and of which little is taken unless it is read."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    made.setblocking(False)
    url = URL(address)
    await asyncio.get_running_loop().sock_connect(made, (url.host, url.port))
    reader, writer = await asyncio.open_connection(sock=made, limit=1_024)
    writer.write(sends)
    try:
        yield reader
    finally:
        writer.close()


async def ended(reader: asyncio.StreamReader) -> None:
    """Wait until the server has ended it."""
    async with asyncio.timeout(BOUND_S / 2):
        while True:
            try:
                if not await reader.read(65_536):
                    return
            except ConnectionError:
                return


def test_what_asks_for_nothing_is_ended_and_a_page_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it never asked, asked and asks no more, or sends a request that has no end."""
    monkeypatch.setattr(connections, "IDLE_S", 0.3)

    async def main() -> None:
        async with serving() as (address, client), client.ws_connect(f"{address}ws") as page:
            assert (await page.receive_json())["t"] == "hello"
            head = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
            for sends in (b"", head, head + b"\r\n"):
                async with asking_nothing(address, sends) as reader:
                    await ended(reader)
            await page.send_str('{"op":"ping"}')
            assert (await page.receive_json())["t"] == "state"

    asyncio.run(asyncio.wait_for(main(), BOUND_S))


def test_what_takes_nothing_of_an_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_S", 0.3)

    async def main() -> None:
        async with serving() as (address, _):
            asked = f"GET /{FILE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 200
            async with asking_nothing(address, asked) as reader:
                transport = reader._transport  # type: ignore[attr-defined]
                transport.pause_reading()
                await asyncio.sleep(1.0)  # the time that it takes nothing is what is tested
                transport.resume_reading()
                taken = 0
                async with asyncio.timeout(BOUND_S / 2):
                    try:
                        while part := await reader.read(65_536):
                            taken += len(part)
                    except ConnectionError:
                        pass
                assert taken < 200 * 150_000, "all of it came, so nothing had ended it"

    asyncio.run(asyncio.wait_for(main(), BOUND_S))


def test_of_too_many_the_longest_idle_are_ended_and_whoever_asks_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST", 3)

    async def main() -> None:
        async with serving() as (address, client), asking_nothing(address) as first, asking_nothing(address) as second:
            await asyncio.sleep(0.1)  # so that these are the longest idle
            async with asking_nothing(address), asking_nothing(address), asking_nothing(address):
                await ended(first)
                await ended(second)
                async with client.get(address) as answer:
                    assert answer.status == 200

    asyncio.run(asyncio.wait_for(main(), BOUND_S))


class Handler:
    """The library's, as far as it is looked at."""

    def __init__(self, *, in_progress: bool = False, unsent_bytes: int = 0) -> None:
        self.unsent_bytes, self.is_ended = unsent_bytes, False
        self.transport: Any = SimpleNamespace(get_write_buffer_size=lambda: self.unsent_bytes, abort=self.abort)
        self._request_in_progress, self._request_count = in_progress, 0

    def abort(self) -> None:
        self.is_ended, self.transport = True, None

    def ask(self) -> None:
        self._request_count += 1


def test_whoever_is_waited_for_and_nobody_else_is_ended() -> None:
    page, idle, asks, waits, takes, is_stuck = handlers = (
        Handler(),
        Handler(),
        Handler(),
        Handler(in_progress=True),
        Handler(in_progress=True, unsent_bytes=9),
        Handler(in_progress=True, unsent_bytes=9),
    )
    server: Any = SimpleNamespace(connections=handlers)
    watched = connections.Connections(server, lambda: {page})
    for now_s in range(0, 200, 50):
        watched.look(now_s)
        asks.ask()
        takes.unsent_bytes -= 1
    assert [handler.is_ended for handler in handlers] == [each in (idle, is_stuck) for each in handlers]
    assert not waits.is_ended, "an answer that takes long to make is our own business"
