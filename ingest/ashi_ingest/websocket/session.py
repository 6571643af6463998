"""The one policy by which the connections of every venue live: connect, subscribe, renew, connect again.

    connect ── subscribe ──▶ subscribed ── its age, or the venue's announcement ──▶ connect the next one beside it
       ▲  ▲                      │                                                        │
       │  └── wait (backoff) ◀───┴── silence, an end, a drop                              ▼
       └──────────────── the next one is subscribed: the old one is read to its end and closed

Nothing here knows a trade: frames go to a `SessionHandler` as bytes. What differs between venues is in their `Limits`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from ashi.contracts.errors import VenueError
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics
from ashi.runtime.retry import Backoff, retry
from ashi.runtime.service import StoppedError
from ashi_ingest.errors import Reason, classify_error
from ashi_ingest.rate_limiter import RateLimiter
from ashi_ingest.websocket.connection import DRAIN_BOUND_S, VenueConnection
from ashi_ingest.websocket.subscriptions import Suspicions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from websockets.asyncio.client import ClientConnection

    from ashi_ingest.venues.base import Venue
    from ashi_ingest.websocket.handler import SessionHandler

OPEN_TIMEOUT_S: Final = 10.0
MAX_FRAME: Final = 4 * 1024 * 1024
"""Bytes. The largest frames of trades seen have some kilobytes; what is larger than this is no feed of trades."""
OVERLAP_S: Final = 1.0
"""How long two connections deliver the same markets at a renewal, from the last acknowledgment on: a venue may
acknowledge a subscription before each of its servers knows it."""

_log = get_logger(__name__)


async def run_session(
    venue: Venue,
    markets: Sequence[str],
    handler: SessionHandler,
    *,
    url: str,
    limiter: RateLimiter,
    stopping: asyncio.Event,
    backoff: Callable[[], Backoff] = Backoff,
) -> None:
    """Keep all `markets` subscribed until `stopping` is set, or until the venue has refused all of them.

    `limiter`: of messages to a venue that counts them by address; one for the process. `backoff` makes one for
    whatever is tried again.

    Raises:
        VenueError: connecting can never succeed, see `ashi_ingest.errors.classify_error`.

    """
    size = venue.limits.markets_per_connection
    connecting = RateLimiter(venue.limits.connect_interval_s)

    async def stop() -> None:
        await stopping.wait()
        raise StoppedError

    try:
        async with asyncio.TaskGroup() as group:
            stopper = group.create_task(stop())
            chains = [
                group.create_task(
                    _Chain(
                        venue,
                        markets[first : first + size],
                        handler,
                        url=url,
                        connecting=connecting,
                        messages=limiter if venue.limits.paced_by == "address" else None,
                        backoff=backoff,
                        group=group,
                    ).run()
                )
                for first in range(0, len(markets), size)
            ]
            if chains:
                await asyncio.wait(chains)
            stopper.cancel()
    except BaseExceptionGroup as errors:
        failures = [error for error in errors.exceptions if not isinstance(error, StoppedError)]
        if len(failures) == 1:
            raise failures[0] from None
        if failures:
            raise


class _CannotConnectError(Exception):
    """No connection could be made; the next attempt, not before `retry_after_s` seconds, may succeed."""

    def __init__(self, reason: Reason, detail: str, retry_after_s: float) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s


class _Chain:
    """The markets of one connection, and the connections that follow each other to deliver them."""

    def __init__(
        self,
        venue: Venue,
        markets: Sequence[str],
        handler: SessionHandler,
        *,
        url: str,
        connecting: RateLimiter,
        messages: RateLimiter | None,
        backoff: Callable[[], Backoff],
        group: asyncio.TaskGroup,
    ) -> None:
        self._venue = venue
        self._markets = list(markets)
        self._handler = handler
        self._url = url
        self._connecting = connecting
        self._messages = messages
        self._new_backoff = backoff
        self._backoff = backoff()
        self._group = group
        self._suspicions = Suspicions()
        self._retiring: asyncio.TimerHandle | None = None
        self._connections: set[VenueConnection] = set()

    async def run(self) -> None:
        """Open one after another. One that was due and could not be replaced stays until it ends by itself."""
        while self._markets:
            connection = await self._open()
            await _first(connection.closed, connection.subscribed)
            if not connection.closed.done():
                await _first(connection.closed, connection.due)
            lived = connection.closed if connection.closed.done() else connection.due
            self._backoff.lived(lived.result())
            if self._markets:
                await asyncio.sleep(self._backoff.next_s())
        for connection in self._connections:  # that the venue refuses what it had once accepted
            connection.drop(Reason.REFUSED)

    async def _open(self) -> VenueConnection:
        """Make a connection, in as many attempts as it takes. Raises VenueError when none can succeed."""
        socket = await retry(
            self._attempt,
            least_wait_s=lambda error: error.retry_after_s if isinstance(error, _CannotConnectError) else None,
            backoff=self._backoff,
            on_wait=self._on_wait,
        )
        return self._begin(socket)

    async def _attempt(self) -> ClientConnection:
        await self._handler.may_connect()
        await self._connecting.turn()
        try:
            return await self._connect()
        except (WebSocketException, OSError) as error:
            error_class = classify_error(error)
        metrics.reconnects.labels(self._venue.name, error_class.reason).inc()
        if error_class.retry_after_s is None:
            raise VenueError(
                f"{self._venue.name}: no websocket connection can be made to {self._url} ({error_class.detail}). "
                "Correct ASHI_WEBSOCKET_URL if it is set; else look whether the venue serves this address"
            )
        self._connecting.pause(error_class.retry_after_s)
        raise _CannotConnectError(error_class.reason, error_class.detail, error_class.retry_after_s)

    async def _connect(self) -> ClientConnection:
        ping_s = self._venue.limits.ping_interval_s
        return await connect(
            self._url,
            compression=None,
            max_size=MAX_FRAME,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=DRAIN_BOUND_S,
            ping_interval=ping_s,
            ping_timeout=ping_s,
            user_agent_header="ashi",
        )

    def _on_wait(self, error: Exception, wait_s: float) -> None:
        assert isinstance(error, _CannotConnectError)  # noqa: S101
        _log.warning(
            "cannot connect, trying again",
            venue=self._venue.name,
            url=self._url,
            reason=str(error.reason),
            detail=error.detail,
            wait_s=round(wait_s, 3),
        )

    def _begin(self, socket: ClientConnection) -> VenueConnection:
        connection = VenueConnection(
            self._venue,
            self._markets,
            self._handler,
            socket=socket,
            limiter=self._messages or RateLimiter(self._venue.limits.message_interval_s),
            new_backoff=self._new_backoff,
            suspicions=self._suspicions,
            on_refused=self._refused,
            on_accepted=self._on_accepted,
            is_replaced=self._is_replaced,
        )
        self._connections.add(connection)
        task = self._group.create_task(connection.run())
        task.add_done_callback(partial(self._ended, connection, socket))
        return connection

    def _ended(self, connection: VenueConnection, socket: ClientConnection, _: asyncio.Task[None]) -> None:
        self._connections.discard(connection)
        socket.transport.abort()  # the task may have been cancelled before it began

    def _is_replaced(self, connection: VenueConnection) -> bool:
        return any(other.delivers for other in self._connections if other is not connection)

    def _on_accepted(self) -> None:
        """So long after the last acceptance an old connection may bring nothing that a newer one does not."""
        if self._retiring is not None:
            self._retiring.cancel()
        if len(self._connections) > 1:
            self._retiring = asyncio.get_running_loop().call_later(OVERLAP_S, self._retire_old)

    def _retire_old(self) -> None:
        for old in self._connections:
            newer = (other for other in self._connections if other.number > old.number and other.delivers)
            if any(old.accepted <= other.accepted for other in newer):
                old.retire()

    def _refused(self, market: str, reason: str) -> None:
        if market in self._markets:  # else another connection of this chain was told before
            self._markets.remove(market)
            self._handler.on_refused(market, reason)


async def _first(*futures: asyncio.Future[None] | asyncio.Future[float]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
