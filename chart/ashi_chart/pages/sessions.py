"""One page that is connected, over its websocket: heard, told as fast as it takes it, and let go when it is gone."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Final

from aiohttp import WSCloseCode, WSMsgType, web

from ashi.contracts.errors import ContractError
from ashi.runtime.metrics import chart as metrics
from ashi_chart import wire
from ashi_chart.pages.conversation import Conversation

if TYPE_CHECKING:
    from ashi_chart.board import Board

HEARTBEAT_S: Final = 60.0
"""A page that answers no ping within half of this is gone: its machine sleeps, or the network in between is no more."""
SLOW_S: Final = 30.0
"""A page that takes nothing at all of what was sent to it for so long is given up."""
LOOK_S: Final = 1.0
"""So often it is looked whether it does."""
MOST_MISTAKES: Final = 10
"""So many messages that are none may come of one page."""
ASKS_PER_S: Final = 5.0
BURST: Final = 20.0
"""A page may ask so much at once, and then so often; what comes faster waits in the network."""
BUFFERED: Final = 64 * 1024
"""About so much of what is sent to a page waits here for its machine to take it, bytes; the rest waits unmade."""


class Session:
    """One websocket; made for a request, and run to its end."""

    def __init__(self, request: web.Request, board: Board, server: str) -> None:
        """`server`: the id of this process."""
        self._request = request
        # Without compression, which would keep a quarter of a megabyte for each page. The limit of 0 makes each message
        # wait until the transport has room, so that what is sent next is as of then.
        self._socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, compress=False, max_msg_size=wire.MOST_BYTES_ASKED, writer_limit=0, autoclose=False
        )
        self._conversation = Conversation(board, server)
        self._mistakes = 0
        self._ended = ""

    async def run(self) -> web.WebSocketResponse:
        """Talk with the page until it goes, or has to."""
        metrics.chart_clients.inc()
        try:
            await self._socket.prepare(self._request)
            self._hold_little_back()
            results = await self._talk()
        finally:
            self._conversation.end()
            metrics.chart_clients.dec()
            metrics.chart_connections_ended.labels(self._ended or "closed").inc()
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, ConnectionError):
                raise result
        return self._socket

    async def close(self) -> None:
        """Send the page away, to come again: the server stops."""
        self._ended = self._ended or "stopping"
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server stops")

    @property
    def conversation(self) -> Conversation:
        """What the page looks at and is told."""
        return self._conversation

    @property
    def handler(self) -> web.RequestHandler:
        """The library's own object of this connection."""
        return self._request.protocol

    @property
    def waiting_bytes(self) -> int:
        """What was made for the page and waits here for its machine to take it."""
        transport = self._request.transport
        return 0 if transport is None else transport.get_write_buffer_size()

    def _hold_little_back(self) -> None:
        transport = self._request.transport
        if transport is None:
            return
        transport.set_write_buffer_limits(high=BUFFERED)
        raw = transport.get_extra_info("socket")
        if raw is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Else the kernel holds megabytes for a page that is slow, all of them old by the time that they get there.
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, BUFFERED)

    async def _talk(self) -> list[BaseException | None]:
        tasks = [asyncio.create_task(self._tell()), asyncio.create_task(self._listen())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        return results

    async def _listen(self) -> None:
        left, at_s = BURST, time.monotonic()
        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.ERROR:
                self._ended = self._ended or "gone"
                return
            if message.type not in {WSMsgType.TEXT, WSMsgType.BINARY}:
                if self._socket.close_code == WSCloseCode.MESSAGE_TOO_BIG:
                    self._ended = "refused"
                await self._socket.close()
                return
            now_s = time.monotonic()
            left, at_s = min(left + (now_s - at_s) * ASKS_PER_S, BURST) - 1.0, now_s
            if left < 0.0:
                await asyncio.sleep(-left / ASKS_PER_S)
            if not self._is_understood(message.data, is_text=message.type is WSMsgType.TEXT):
                self._ended = "refused"
                await self._socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"too much that is no message")
                return

    def _is_understood(self, data: str | bytes, *, is_text: bool) -> bool:
        """Pass on what the page asks. False: it has sent too much that is no message."""
        try:
            if not is_text:
                raise ContractError("not understood: messages are text")  # noqa: TRY301
            self._conversation.ask(wire.decode_asked(data))
        except ContractError as error:
            self._conversation.complain(str(error))
            self._mistakes += 1
        return self._mistakes <= MOST_MISTAKES

    async def _tell(self) -> None:
        conversation = self._conversation
        await self._send("hello", await conversation.hello())
        while True:
            conversation.has_some.clear()
            async with aclosing(conversation.messages()) as messages:
                async for kind, message in messages:
                    await self._send(kind, message)
            with suppress(TimeoutError):
                async with asyncio.timeout(conversation.wait_s()):
                    await conversation.has_some.wait()

    async def _send(self, kind: str, message: bytes) -> None:
        """Send a message, and wait until there is room for another. Gives up a page that takes nothing."""
        try:
            async with asyncio.timeout(SLOW_S):
                await self._socket.send_frame(message, WSMsgType.TEXT)
        except TimeoutError:
            await self._wait_for_room()
        except ConnectionError:
            self._ended = self._ended or "gone"
            raise
        metrics.chart_messages.labels(kind).inc()
        metrics.chart_bytes.inc(len(message))

    async def _wait_for_room(self) -> None:
        """As long as the page takes something. Raises ConnectionError when it does not."""
        left, since_s = float("inf"), time.monotonic()
        while (waiting := self.waiting_bytes) > BUFFERED:
            if waiting < left:
                left, since_s = waiting, time.monotonic()
            elif time.monotonic() - since_s > SLOW_S:
                self._ended = "slow"
                if self._request.transport is not None:
                    self._request.transport.abort()
                raise ConnectionError(f"the page took nothing for {SLOW_S:.0f} s")
            await asyncio.sleep(LOOK_S)
