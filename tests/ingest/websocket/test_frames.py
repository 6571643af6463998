"""Messages that are cut out of what was read: whatever a server sends, they are those that the library would give."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets import frames as library_frames
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode

from ashi_ingest.websocket import frames as frames_module
from ashi_ingest.websocket.frames import FrameConnection
from servers.websocket_wire import MAX_FRAME, begun, outcome_of


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
