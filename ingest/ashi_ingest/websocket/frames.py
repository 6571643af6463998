"""A connection of the `websockets` library whose messages are taken as many at a time as have been read at once.

The library reads a frame in steps, each a generator, and hands it over by a coroutine: 4.5 µs of CPU for each of the
frames of a busy venue, which are small, whole and in clear. Those are cut out of what was read here, for a fifth of
that. Everything else is left to the library, whole frame by whole frame: the handshake, pings, the end, messages in
fragments, and what breaks the protocol, which it answers as ever.

The format: https://www.rfc-editor.org/rfc/rfc6455#section-5.2
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from websockets.asyncio.client import ClientConnection
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import State

if TYPE_CHECKING:
    import asyncio

    from websockets.client import ClientProtocol

MOST_WAITING: Final = 512 * 1024
"""Bytes that may have been read and not taken, before no more are read. At once some 256 KB are read at most."""

_WHOLE: Final = (0x81, 0x82)
"""How a message of text or of bytes begins that is one frame."""
_CONTROL: Final = (0x88, 0x89, 0x8A)
_KNOWN: Final = frozenset({*_WHOLE, *_CONTROL, 0x00, 0x01, 0x02, 0x80})
"""How frames begin. One that begins in another way ends the connection."""
_FIN: Final = 0x80
_OPCODE: Final = 0x0F
_BY_TWO_BYTES: Final = 126
_BY_EIGHT_BYTES: Final = 127
"""What stands for the length where two or eight bytes tell it that follow. More has a mask, which no server sends."""
_END_OF_HEAD: Final = b"\r\n\r\n"
"""Of the answer to the handshake."""


class Received(NamedTuple):
    """Messages that were read at once, at least one, and when, ns."""

    messages: list[bytes]
    at_ns: int


class FrameConnection(ClientConnection):
    """A connection as `connect(create_connection=…)` makes it, read by `recv_many` in the place of `recv`."""

    def __init__(self, protocol: ClientProtocol, *, max_frame: int, **options: Any) -> None:
        """As the library's own. `max_frame`: its `max_size`, bytes."""
        super().__init__(protocol, **options)
        self._max_frame = max_frame
        self._unread = b""  # of a frame that is not whole yet, or of what may be the end of the handshake's answer
        self._left_to_library = False
        self._in_fragments = False
        self._fragments: list[bytes] = []
        self._messages: list[bytes] = []
        self._received: deque[tuple[Received, int]] = deque()
        self._waiting_bytes = 0
        self._is_held_up = False
        self._is_lost = False
        self._waiter: asyncio.Future[None] | None = None

    async def recv_many(self) -> Received:
        """The next messages, of text or of bytes, in their order. One call at a time.

        Raises ConnectionClosed as `recv` does, when all that came before the end has been taken.
        """
        while not self._received:
            if self._is_lost:
                await self.recv()  # it raises
            self._waiter = self.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        received, size = self._received.popleft()
        self._waiting_bytes -= size
        if self._is_held_up and self._waiting_bytes <= MOST_WAITING // 2:
            self._is_held_up = False
            self.transport.resume_reading()
        return received

    def data_received(self, data: bytes) -> None:
        """Bytes have been read."""
        at_ns = time.time_ns()
        unread, self._unread = self._unread + data if self._unread else data, b""
        if self.protocol.state is State.CONNECTING and not self._left_to_library:
            unread = self._begin(unread)
        if unread:
            self._take(unread)
        if self._messages:
            size = sum(map(len, self._messages))  # and not what was read now: a message may have come in many parts
            self._received.append((Received(self._messages, at_ns), size))
            self._messages = []
            self._waiting_bytes += size
            if self._waiting_bytes > MOST_WAITING and not self._is_held_up:
                self._is_held_up = True
                self.transport.pause_reading()
            self._wake()

    def eof_received(self) -> None:
        """Nothing more will be read."""
        self._give_up_unread()
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        self._give_up_unread()
        super().connection_lost(exc)
        self._is_lost = True
        self._wake()

    def process_event(self, event: Any) -> None:
        """The library has read the answer to the handshake, or a frame that was left to it."""
        if self.response is None or not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
            return
        self._fragments.append(bytes(event.data))
        if event.fin:
            self._messages.append(b"".join(self._fragments))
            self._fragments = []

    def _begin(self, unread: bytes) -> bytes:
        """Leave the answer to the handshake to the library. Gives what follows it."""
        end = unread.find(_END_OF_HEAD)
        if end < 0:
            so_far = max(len(unread) - len(_END_OF_HEAD) + 1, 0)
            self._unread = unread[so_far:]
            super().data_received(unread[:so_far])
            return b""
        end += len(_END_OF_HEAD)
        super().data_received(unread[:end])
        self._left_to_library = self.protocol.state is not State.OPEN  # the body of a refusal follows
        return unread[end:]

    def _take(self, unread: bytes) -> None:
        """Cut out the messages that are one frame, and leave all else to the library."""
        messages = self._messages
        at, end = 0, len(unread)
        is_ours = self.protocol.state is State.OPEN and not self._left_to_library
        while is_ours and end - at > 1:
            first, length = unread[at], unread[at + 1]
            begin = at + 2
            if length >= _BY_TWO_BYTES or first not in _WHOLE:
                if first not in _KNOWN or length > (125 if first in _CONTROL else _BY_EIGHT_BYTES):
                    is_ours = False
                    break
                if length >= _BY_TWO_BYTES:
                    begin += 2 if length == _BY_TWO_BYTES else 8
                    if begin > end:
                        break
                    length = int.from_bytes(unread[at + 2 : begin])
                    if length > self._max_frame:
                        is_ours = False
                        break
            after = begin + length
            if after > end:
                break
            if first in _WHOLE and not self._in_fragments:
                messages.append(unread[begin:after])
            else:
                self._leave(first, unread[at:after])
                is_ours = self.protocol.state is State.OPEN
            at = after
        if is_ours:
            self._unread = unread[at:]
        elif at < end:
            self._left_to_library = True  # which ends it, or has been told to
            super().data_received(unread[at:])

    def _leave(self, first: int, frame: bytes) -> None:
        """Leave a frame to the library, and remember whether a message goes on behind it."""
        if first & _OPCODE in DATA_OPCODES:
            self._in_fragments = not first & _FIN
        super().data_received(frame)

    def _give_up_unread(self) -> None:
        unread, self._unread = self._unread, b""
        if unread:
            super().data_received(unread)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
