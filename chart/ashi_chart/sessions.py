"""One page that is connected: what it asks, and what it is told as fast as it takes it."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, Final

from aiohttp import WSCloseCode, WSMsgType, web

from ashi.contracts.errors import ContractError
from ashi.runtime.metrics import chart as metrics
from ashi_chart import wire

if TYPE_CHECKING:
    from collections.abc import Callable

STATE_INTERVAL_S: Final = 5.0
"""A page is told so often how things are, also when nothing else is to be told: so it knows that it is connected."""
HEARTBEAT_S: Final = 30.0
"""A page that answers no ping within half of this is gone: its machine sleeps, or the network in between is no more."""
SLOW_S: Final = 30.0
"""A page that takes nothing of what was sent to it for so long is given up."""
MOST_MISTAKES: Final = 10
"""So many messages that are none may come of one page."""
BUFFERED: Final = 64 * 1024
"""About so much of what is sent to a page waits here for its machine to take it, bytes; the rest waits unmade."""


class Session:
    """One websocket; made for a request, and run to its end."""

    def __init__(self, request: web.Request, state: Callable[[], bytes], hello: Callable[[], bytes]) -> None:
        """`state` and `hello` make these messages as of now."""
        self._request = request
        self._state, self._hello = state, hello
        # Without compression, which would keep a quarter of a megabyte for each page. No limit of its own: each message
        # waits until the transport has room, so that what is sent next is as of then.
        self._socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, compress=False, max_msg_size=wire.MOST_BYTES_ASKED, writer_limit=0, autoclose=False
        )
        self._mistakes = 0

    async def run(self) -> web.WebSocketResponse:
        """Talk with the page until it goes, or has to."""
        await self._socket.prepare(self._request)
        self._hold_little_back()
        metrics.chart_clients.inc()
        telling = asyncio.create_task(self._tell())
        try:
            reason = await self._listen()
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            metrics.chart_clients.dec()
        metrics.chart_connections_ended.labels(reason).inc()
        return self._socket

    def _hold_little_back(self) -> None:
        transport = self._request.transport
        if transport is None:
            return
        transport.set_write_buffer_limits(high=BUFFERED)
        raw = transport.get_extra_info("socket")
        if raw is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Else the kernel holds megabytes for a page that is slow, all of them old by the time that they get there.
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, BUFFERED)

    async def _listen(self) -> str:
        """What the page asks, until it goes: why it went."""
        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.TEXT:
                try:
                    await self._answer(wire.decode_asked(message.data))
                    continue
                except ContractError as error:
                    if await self._is_mistaken(str(error)):
                        return "refused"
            elif message.type is WSMsgType.BINARY:
                if await self._is_mistaken("a message is text"):
                    return "refused"
            elif message.type is WSMsgType.ERROR:
                return "gone"
            else:
                await self._socket.close()
                return "closed"

    async def _is_mistaken(self, sentence: str) -> bool:
        self._mistakes += 1
        if self._mistakes > MOST_MISTAKES:
            await self._socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"too many messages that are none")
            return True
        await self._send(wire.error_message("message", sentence))
        return False

    async def _answer(self, asked: wire.Asked) -> None:
        if isinstance(asked, wire.Ping):
            await self._send(self._state())
            return
        about = "series" if isinstance(asked, wire.AskSeries) else "markets"
        await self._send(wire.error_message(about, f"{about} are not served yet"))

    async def _tell(self) -> None:
        await self._send(self._hello())
        while True:
            await self._send(self._state())
            await asyncio.sleep(STATE_INTERVAL_S)

    async def _send(self, message: bytes) -> None:
        """Send a message, and wait until there is room for another. Gives up a page that takes nothing."""
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(SLOW_S):
                await self._socket.send_frame(message, WSMsgType.TEXT)
        except (TimeoutError, ConnectionError):
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionError(f"nothing was taken for {time.monotonic() - began_s:.0f} s") from None
        metrics.chart_bytes.inc(len(message))
