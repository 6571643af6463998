"""Messages that are cut out of what was read: whatever a server sends, they are those that the library would give."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets import frames as library_frames
from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from ashi_ingest.websocket import frames as frames_module
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


def serialized(opcode: Opcode, data: bytes, *, fin: bool = True, mask: bool = False) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=mask)


text = partial(serialized, Opcode.TEXT)
sizes = st.sampled_from([0, 1, 5, 125, 126, 127, 200, 65_535, 65_536])
payloads = st.builds(lambda size, byte: bytes([byte]) * size, sizes, st.integers(0, 255))
messages = st.builds(serialized, st.sampled_from([Opcode.TEXT, Opcode.BINARY]), payloads)
pings = st.builds(serialized, st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=20))


@st.composite
def in_fragments(draw: st.DrawFn) -> bytes:
    parts = draw(st.lists(st.binary(max_size=10), min_size=2, max_size=4))
    frames = []
    for number, part in enumerate(parts):
        opcode = Opcode.CONT if number else Opcode.TEXT
        frames.append(serialized(opcode, part, fin=number == len(parts) - 1))
        frames += draw(st.lists(pings, max_size=1))
    return b"".join(frames)


odd = st.one_of(
    st.just(serialized(Opcode.CLOSE, b"\x03\xe8bye")),
    st.just(serialized(Opcode.CLOSE, b"")),
    st.just(serialized(Opcode.CLOSE, b"\x03")),
    st.builds(lambda data: text(data, mask=True), st.binary(max_size=5)),
    st.just(b"\xc1\x01a"),  # as if it were compressed
    st.builds(lambda data: text(data, fin=False), st.binary(max_size=5)),
    st.just(serialized(Opcode.CONT, b"nothing before")),
    st.builds(lambda more: text(b"a" * (MAX_FRAME + more)), st.integers(0, 1)),
    st.just(b"\x83\x00"),
    st.binary(max_size=12),
)
sent = st.lists(st.one_of(messages, messages, messages, pings, in_fragments(), odd), max_size=12).map(b"".join)


@pytest.fixture(autouse=True)
def _known_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_frames.secrets, "token_bytes", bytes)


ours = partial(FrameConnection, max_frame=MAX_FRAME)


@given(sent, st.lists(st.integers(0, 400_000), max_size=12), st.none() | st.integers(0, 8))
def test_what_comes_of_it_is_what_the_library_makes_of_it(sent: bytes, splits: list[int], closes: int | None) -> None:
    async def main() -> None:
        theirs = await outcome_of(ClientConnection, sent, splits, closes_after=closes)
        assert await outcome_of(ours, sent, splits, closes_after=closes) == theirs

    asyncio.run(main())


def test_a_byte_at_a_time() -> None:
    sent = text(b"one") + serialized(Opcode.PING, b"p") + text(b"2" * 130) + serialized(Opcode.CLOSE, b"\x03\xe8")

    async def main() -> None:
        outcome = await outcome_of(ours, sent, range(2_000))
        assert outcome.messages == [b"one", b"2" * 130]
        assert outcome == await outcome_of(ClientConnection, sent, range(2_000))

    asyncio.run(main())


def test_a_refusal_is_the_librarys_business() -> None:
    async def main(cls: Any) -> str:
        connection, _, _, task = await begun(cls)
        for piece in (b"HTTP/1.1 429 Too Many\r\nContent-Length: 4\r", b"\n\r", b"\nlat", b"er"):
            connection.data_received(piece)
        connection.eof_received()
        connection.connection_lost(None)
        with pytest.raises(InvalidStatus, match="429") as caught:
            await task
        return f"{caught.value} {caught.value.response.body!r}"

    assert asyncio.run(main(ours)) == asyncio.run(main(ClientConnection))


def test_what_is_read_at_once_is_given_at_once_and_with_the_time_at_which_it_was_read() -> None:
    async def main() -> None:
        connection, _, answer, task = await begun(ours)
        connection.data_received(answer + text(b"1") + text(b"2") + text(b"3")[:2])
        connection.data_received(text(b"3")[2:] + text(b"4"))
        await task
        first, second = await connection.recv_many(), await connection.recv_many()
        assert (first.messages, second.messages) == ([b"1", b"2"], [b"3", b"4"])
        assert first.at_ns <= second.at_ns
        connection.connection_lost(None)

    asyncio.run(main())


def test_who_does_not_take_what_was_read_is_sent_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_module, "MOST_WAITING", 1_000)

    async def main() -> None:
        connection, wire, answer, task = await begun(ours)
        connection.data_received(answer)
        await task
        for _ in range(3):
            connection.data_received(text(b"a" * 400))
        assert not wire.reads
        await connection.recv_many()
        assert not wire.reads, "half of it has to be taken"
        await connection.recv_many()
        assert wire.reads
        await connection.recv_many()
        connection.connection_lost(None)

    asyncio.run(main())
