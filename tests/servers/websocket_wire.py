"""A websocket connection without a network: what comes of the bytes that a server sends, and of the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from ashi_ingest.websocket.frames import FrameConnection

MAX_FRAME = 66_000


class Wire(asyncio.Transport):
    """What the connection writes, and whether it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.reads = True
        self.is_over = False

    def write(self, data: Any) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.written += b"<eof>"

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.is_over

    def abort(self) -> None:
        self.is_over = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


@dataclass(repr=False)
class Outcome:
    """What came of what a server has sent: messages, what was written in answer, and the error at the end."""

    messages: list[bytes] = field(default_factory=list)
    written: bytes = b""
    error: str = ""

    def __repr__(self) -> str:
        return f"{[(len(message), message[:9]) for message in self.messages]} {self.written!r} {self.error}"


def answered(request: bytes) -> bytes:
    """The answer to a handshake."""
    server = ServerProtocol()
    server.receive_data(request)
    (event,) = server.events_received()
    server.send_response(server.accept(event))  # type: ignore[arg-type]
    return b"".join(server.data_to_send())


async def begun(cls: Any) -> tuple[Any, Wire, bytes, asyncio.Task[None]]:
    """A connection that has sent its request, and the answer to that."""
    protocol = ClientProtocol(parse_uri("ws://venue/"), max_size=MAX_FRAME)
    wire = Wire()
    connection = cls(protocol, ping_interval=None, max_queue=None)
    connection.connection_made(wire)
    task = asyncio.create_task(connection.handshake())
    await asyncio.sleep(0)
    answer = answered(bytes(wire.written))
    wire.written.clear()
    return connection, wire, answer, task


async def outcome_of(cls: Any, sent: bytes, splits: Iterable[int], *, closes_after: int | None = None) -> Outcome:
    """Deliver the answer to the handshake and what was sent in pieces, then the end."""
    connection, wire, answer, task = await begun(cls)
    everything = answer + sent
    places = sorted({0, len(everything), *(place % (len(everything) + 1) for place in splits)})
    outcome = Outcome()

    async def read() -> None:
        try:
            while True:
                if isinstance(connection, FrameConnection):
                    outcome.messages += (await connection.recv_many()).messages
                else:
                    outcome.messages.append(await connection.recv(decode=False))
        except ConnectionClosed as error:
            outcome.error = str(error)

    closing = None
    reading = asyncio.create_task(read())
    for number, (begin, end) in enumerate(pairwise(places)):
        connection.data_received(everything[begin:end])
        await asyncio.sleep(0)
        if number == closes_after:
            closing = asyncio.create_task(connection.close())
            await asyncio.sleep(0)
    connection.eof_received()
    connection.connection_lost(None)
    await asyncio.gather(reading, task, return_exceptions=True)
    if closing is not None:
        await closing
    outcome.written = bytes(wire.written)
    return outcome
