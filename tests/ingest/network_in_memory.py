"""TCP between the parties of one event loop, without a kernel: what is written is there in the loop's next round.

Streams keep their order, end with what was written before, break off by a reset or an abort, and hold a writer up whose
reader does not read. Nobody can listen or connect outside.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
from collections.abc import Callable
from typing import Any

HOST = "127.0.0.1"
KERNEL_BYTES = 1 << 18
"""What a real connection takes over before its writer is held up, roughly."""
HIGH_WATER_BYTES = 1 << 16
"""What the writer keeps itself then, before its protocol is told to pause; asyncio's default."""

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class Network:
    """Who listens where."""

    def __init__(self) -> None:
        self._listeners: dict[int, Listener] = {}
        self._ports = itertools.count(30_000)

    def listen(self, factory: ProtocolFactory, address: tuple[str, int]) -> Listener:
        """Port 0 is any that is free. Raises OSError when it is taken, or of another host."""
        if address[0] != HOST:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        port = address[1] or next(self._ports)
        if port in self._listeners:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        listener = self._listeners[port] = Listener(self, factory, port)
        return listener

    def forget(self, port: int) -> None:
        self._listeners.pop(port, None)

    def check(self, address: tuple[str, int]) -> None:
        """Raises ConnectionRefusedError when nobody listens."""
        if address[0] != HOST or address[1] not in self._listeners:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed {address}")

    def connect(
        self, loop: asyncio.AbstractEventLoop, factory: ProtocolFactory, address: tuple[str, int]
    ) -> tuple[End, asyncio.BaseProtocol]:
        """Both ends are there at once. Raises ConnectionRefusedError when nobody listens."""
        self.check(address)
        port, own_port = address[1], next(self._ports)
        near, far = End(loop, own_port, port), End(loop, port, own_port)
        near.peer, far.peer = far, near
        protocol = factory()
        far.begin(self._listeners[port].factory())
        near.begin(protocol)
        return near, protocol


class Listener:
    """What `create_server` gives."""

    def __init__(self, network: Network, factory: ProtocolFactory, port: int) -> None:
        self.factory = factory
        self.sockets: tuple[Socket, ...] = (Socket(port, 0),)
        self._network = network
        self._port = port

    def close(self) -> None:
        """Nobody can connect any more; connections stay."""
        self.sockets = ()
        self._network.forget(self._port)

    async def wait_closed(self) -> None:
        pass


class Socket:
    """As much of a socket as a transport is asked for."""

    family = socket.AF_INET

    def __init__(self, port: int, peer_port: int) -> None:
        self.resets = False
        self._name, self._peer = (HOST, port), (HOST, peer_port)

    def getsockname(self) -> tuple[str, int]:
        return self._name

    def getpeername(self) -> tuple[str, int]:
        return self._peer

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):  # with no time, which is all it is used for
            self.resets = True


class End(asyncio.Transport):
    """One side of a connection.

    Attributes:
        incoming: what the other side has written and the protocol of this one has not been given.

    """

    peer: End

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int, peer_port: int) -> None:
        self._socket = Socket(port, peer_port)
        super().__init__({"socket": self._socket, "sockname": (HOST, port), "peername": (HOST, peer_port)})
        self.incoming = bytearray()
        self._loop = loop
        self._high = HIGH_WATER_BYTES
        self._low = HIGH_WATER_BYTES // 4
        self._is_reading = True
        self._is_due = False  # to look at what has come in
        self._is_over = False  # the other side writes nothing more
        self._is_reset = False
        self._has_seen_end = False
        self._has_ended = False  # this side writes nothing more
        self._is_closing = False
        self._is_lost = False
        self._is_held_up = False

    def begin(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol: Any = protocol
        self._loop.call_soon(protocol.connection_made, self)

    # What comes in.

    def has_news(self) -> None:
        """Something was written to `incoming`, or it is over."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._is_due = False
        if not self.is_reading():
            return
        if self.incoming:
            data = bytes(self.incoming)
            self.incoming.clear()
            self._protocol.data_received(data)
            self.peer.on_taken()
            if self._is_reset or self._is_over:
                self.has_news()
        elif self._is_reset:
            self._lose(_reset_error())
        elif self._is_over and not self._has_seen_end:
            self._has_seen_end = True
            if not self._protocol.eof_received():
                self.close()

    def is_reading(self) -> bool:
        return self._is_reading and not self._is_closing

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        self.has_news()

    # What goes out.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing or not data:
            return
        if self.peer._is_closing:
            if self._has_seen_end or not self._is_reading:  # else it sees the end at once
                self._loop.call_soon(self._lose, _reset_error())
            return
        self.peer.incoming += data
        self.peer.has_news()
        if not self._is_held_up and self.get_write_buffer_size() > self._high:
            self._is_held_up = True
            self._protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return max(len(self.peer.incoming) - KERNEL_BYTES, 0)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high if high is not None else 4 * low if low is not None else HIGH_WATER_BYTES
        self._low = low if low is not None else self._high // 4

    def on_taken(self) -> None:
        """The other side has read."""
        if self._is_held_up and not self._is_closing and self.get_write_buffer_size() <= self._low:
            self._is_held_up = False
            self._protocol.resume_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._is_closing and not self._has_ended:
            self._has_ended = True
            self.peer.on_end(reset=False)

    # Its end.

    def on_end(self, *, reset: bool) -> None:
        """The other side writes nothing more; what it has written is read before."""
        self._is_over = True
        self._is_reset |= reset
        self.has_news()

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._end(reset=False)

    def abort(self) -> None:
        del self.peer.incoming[KERNEL_BYTES:]
        self._end(reset=self._socket.resets)

    def _end(self, *, reset: bool) -> None:
        if not self._is_closing:
            self._is_closing = True
            self.peer.on_end(reset=reset or bool(self.incoming))  # as kernels do where something was not read
            self._loop.call_soon(self._lose, None)

    def _lose(self, error: Exception | None) -> None:
        if not self._is_lost:
            self._is_lost = self._is_closing = True
            self._protocol.connection_lost(error)

    # For whoever asks.

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol


def _reset_error() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
