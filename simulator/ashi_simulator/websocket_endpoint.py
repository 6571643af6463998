"""The websocket interface as a whole: each connection's life, within the limits of the venue."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import WSMsgType, web

from ashi_simulator.connection import Connection
from ashi_simulator.limit_usage import MessageUsage

if TYPE_CHECKING:
    from ashi_simulator.limit_usage import LimitUsage
    from ashi_simulator.rules import Rules
    from ashi_simulator.subscriptions import Subscriptions
    from ashi_simulator.venue_server import VenueServer

POLICY_VIOLATION: Final = 1008
MAX_MESSAGE: Final = 1024 * 1024

LIFETIME_CODE: Final = 1001


class WebsocketEndpoint:
    """Lets clients in and listens to them."""

    def __init__(
        self,
        rules: Rules,
        subscriptions: Subscriptions,
        venue_server: VenueServer,
        usage: LimitUsage,
    ) -> None:
        self._rules = rules
        self._subscriptions = subscriptions
        self._venue_server = venue_server
        self._usage = usage
        self._refused_until = 0.0
        self._refusal_status = 403

    def refuse(self, status: int, seconds: float) -> None:
        """For so long, answer whoever opens a websocket with a status."""
        self._refusal_status = status
        self._refused_until = asyncio.get_running_loop().time() + seconds

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """What aiohttp calls for a client that opens a websocket; it returns when the connection has ended."""
        wait_s = self._usage.attempts.take(request.remote or "", 1, asyncio.get_running_loop().time())
        if wait_s is not None:
            return web.Response(status=429, headers={"Retry-After": str(int(wait_s) + 1)})
        if asyncio.get_running_loop().time() < self._refused_until:
            return web.Response(status=self._refusal_status, text="no websocket for you now")
        ws = web.WebSocketResponse(autoping=False, compress=False, max_msg_size=MAX_MESSAGE)
        await ws.prepare(request)
        self._usage.connections += 1
        connection = Connection(
            self._usage.connections,
            request,
            ws,
            messages=MessageUsage(self._rules.messages_per_s),
            unread_bytes=self._rules.unread_bytes,
            on_slow=self._count_slow,
        )
        self._subscriptions.add(connection)
        keepers = [asyncio.create_task(self._ping(connection)), asyncio.create_task(self._limit_life(connection))]
        try:
            self._venue_server.opened(connection, request)
            await self._read(connection, ws)
        finally:
            self._subscriptions.remove(connection)
            for keeper in keepers:
                keeper.cancel()
        return ws

    def _count_slow(self) -> None:
        self._usage.slow_readers += 1

    async def _read(self, connection: Connection, ws: web.WebSocketResponse) -> None:
        async for message in ws:
            if not self._within_limits(connection):
                await connection.close(POLICY_VIOLATION, "too many messages")
                return
            match message.type:
                case WSMsgType.TEXT:
                    self._on_text(connection, message.data)
                case WSMsgType.PING:
                    connection.pong(message.data)
                case WSMsgType.PONG:
                    connection.pings_unanswered = 0
                case _:  # no venue listens to binary messages
                    pass

    def _within_limits(self, connection: Connection) -> bool:
        allowed = connection.messages.take(asyncio.get_running_loop().time())
        usage = self._usage
        usage.most_messages_per_s = max(usage.most_messages_per_s, connection.messages.most)
        usage.message_violations += not allowed
        return allowed

    def _on_text(self, connection: Connection, text: str) -> None:
        by_address = self._rules.subscribe_interval_s is not None
        who = connection.address if by_address else connection.number
        too_soon = not self._usage.subscribe.take(who, asyncio.get_running_loop().time())
        if self._subscriptions.late_s:
            loop = asyncio.get_running_loop()
            loop.call_later(self._subscriptions.late_s, self._take_note, connection, text, too_soon)
        else:
            self._take_note(connection, text, too_soon)

    def _take_note(self, connection: Connection, text: str, too_soon: bool) -> None:
        """Let the venue answer, if the client is still there."""
        if connection not in self._subscriptions.connections:
            return
        connection.too_soon = too_soon
        self._venue_server.received(connection, text)
        streams = len(connection.subscriptions) + len(connection.unknown_streams)
        self._usage.most_streams = max(self._usage.most_streams, streams)

    async def _ping(self, connection: Connection) -> None:
        """Ping as the venue does, and disconnect who does not answer."""
        if self._rules.ping_interval_s is None:
            return
        while True:
            await asyncio.sleep(self._rules.ping_interval_s)
            if connection.pings_unanswered >= self._rules.missed_pongs:
                self._usage.pongs_missed += 1
                connection.reset()
                return
            connection.ping()

    async def _limit_life(self, connection: Connection) -> None:
        """Close a connection that has reached the venue's limit."""
        if self._rules.lifetime_s is None:
            return
        notice_s = min(self._rules.notice_s or 0.0, self._rules.lifetime_s)
        await asyncio.sleep(self._rules.lifetime_s - notice_s)
        await self.end_of_life(connection, notice_s)

    async def end_of_life(self, connection: Connection, notice_s: float) -> None:
        """Close a connection whose time is over; where the venue announces that, so many seconds before."""
        notice = self._venue_server.notice()
        if notice is not None:
            connection.send(notice)
            await asyncio.sleep(notice_s)
        await connection.close(LIFETIME_CODE, "the time of this connection is over")
