"""One websocket connection of a client, written to by hand: frames are encoded once for all, and sent in batches."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohttp import web

    from ashi_simulator.limit_usage import MessageUsage

Style: TypeAlias = "Callable[[bytes], Sequence[bytes]] | None"
"""How a subscription has its frames: what becomes of one; None for as it is."""

CLOSE_PATIENCE_S: Final = 2.0
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, 0 s: closing the socket sends RST instead of FIN."""


def text_frame(payload: bytes) -> bytes:
    """A whole text message as a server sends it (RFC 6455, 5.2)."""
    return _header(0x81, len(payload)) + payload


def _header(first: int, length: int) -> bytes:
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)


class Connection:
    """A client's connection: what it has subscribed to, and what is wrong with it on purpose.

    Attributes:
        number: counts from 1 in the simulator.
        address: the client's IP address.
        subscriptions: market to style.
        unknown_streams: streams it has subscribed to that do not exist, where the venue says nothing to that.
        combined: its frames name their stream (Binance).
        too_soon: its last message came before the venue's least interval was over.
        messages: counts what it sends.
        muted: it stays open and never sends anything again.
        delay_s: what is sent arrives so much later.
        pings_unanswered: since the last pong.

    """

    def __init__(
        self,
        number: int,
        request: web.Request,
        ws: web.WebSocketResponse,
        *,
        messages: MessageUsage,
        unread_bytes: int,
        on_slow: Callable[[], None],
    ) -> None:
        assert request.transport is not None  # noqa: S101  (of a request that has just come)
        self.number = number
        self.address = request.remote or ""
        self.subscriptions: dict[str, Style] = {}
        self.unknown_streams: set[str] = set()
        self.combined = False
        self.too_soon = False
        self.messages = messages
        self.muted = False
        self.delay_s = 0.0
        self.pings_unanswered = 0
        self._ws = ws
        self._transport: asyncio.WriteTransport = request.transport
        self._unread_bytes = unread_bytes
        self._on_slow = on_slow
        self._out: list[bytes] = []
        self._delayed: deque[tuple[float, bytes]] = deque()
        self._loop = asyncio.get_running_loop()

    def push(self, market: str, payloads: Sequence[bytes]) -> None:
        """Have messages of a market sent with the next `flush`, in the style of the subscription."""
        style = self.subscriptions[market]
        if style is None:
            self._out.extend(map(text_frame, payloads))
        else:
            self._out.extend(text_frame(styled) for payload in payloads for styled in style(payload))

    def send(self, payload: bytes) -> None:
        """Send a message now, behind what is waiting."""
        self._out.append(text_frame(payload))
        self.flush()

    def ping(self) -> None:
        """Ask whether the client is still there."""
        self.pings_unanswered += 1
        self._out.append(_header(0x89, 0))
        self.flush()

    def pong(self, payload: bytes) -> None:
        """Answer a client's ping."""
        self._out.append(_header(0x8A, len(payload)) + payload)
        self.flush()

    def flush(self) -> None:
        """Send what is waiting, in one write."""
        if not self._out:
            return
        data = b"".join(self._out)
        self._out.clear()
        if self.muted:
            return
        if self.delay_s or self._delayed:
            last = self._delayed[-1][0] if self._delayed else 0.0
            due = max(self._loop.time() + self.delay_s, last)  # nothing overtakes what was sent before
            self._delayed.append((due, data))
            self._loop.call_at(due, self._send_delayed)
        else:
            self._write(data)

    def _send_delayed(self) -> None:
        while self._delayed and self._delayed[0][0] <= self._loop.time():
            data = self._delayed.popleft()[1]
            if not self.muted:
                self._write(data)

    def _write(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > self._unread_bytes:
            self._on_slow()
            self.reset()
            return
        self._transport.write(data)

    def reset(self) -> None:
        """Break the TCP connection without a word (RST)."""
        with contextlib.suppress(OSError, AttributeError):
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    async def close(self, code: int, reason: str) -> None:
        """Close in order; a client that does not answer is disconnected after two seconds."""
        self.flush()
        try:
            async with asyncio.timeout(CLOSE_PATIENCE_S):
                await self._ws.close(code=code, message=reason.encode())
        except (TimeoutError, ConnectionError):
            self.reset()

    def half_frame(self, payload: bytes, *, fragmented: bool) -> None:
        """Send half of a message and nothing of the rest; the caller breaks the connection then.

        Fragmented: a first fragment that is complete. Otherwise: a frame whose header promises more than comes.
        """
        half = payload[: len(payload) // 2]
        self._out.append((_header(0x01, len(half)) if fragmented else _header(0x81, len(payload))) + half)
        self.flush()
        self.muted = True
