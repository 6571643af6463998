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
from typing import TYPE_CHECKING, Final, Protocol

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from ashi.contracts.errors import VenueError
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics
from ashi.runtime.retry import Backoff
from ashi_ingest.errors import RateLimiter, Reason, classify_error
from ashi_ingest.websocket.connection import DRAIN_BOUND_S, VenueConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from websockets.asyncio.client import ClientConnection

    from ashi_ingest.venues.base import Venue

__all__ = ["SessionHandler", "VenueConnection", "run_session"]

OPEN_TIMEOUT_S: Final = 10.0
MAX_FRAME: Final = 4 * 1024 * 1024
"""Bytes. The largest frames of trades seen have some kilobytes; what is larger than this is no feed of trades."""
OVERLAP_S: Final = 1.0
"""How long two connections deliver the same markets at a renewal, from the last acknowledgment on: a venue may
acknowledge a subscription before each of its servers knows it."""

_log = get_logger(__name__)


class SessionHandler(Protocol):
    """Whoever wants the frames. Only `may_connect` may wait; what another method raises ends the session."""

    async def may_connect(self) -> None:
        """Called before each attempt to connect, which waits for it."""

    def on_open(self, link: VenueConnection) -> None:
        """Called first for each connection."""

    def on_subscribed(self, link: VenueConnection, markets: Sequence[str]) -> None:
        """The venue has accepted these: their trades come over this connection from now on.

        Called again for a market when the venue refuses for now what seemed accepted, and then accepts it.
        """

    def on_refused(self, market: str, reason: str) -> None:
        """There is no such market: it is not subscribed to again. The others go on. Called once for a market."""

    def on_frame(self, link: VenueConnection, frame: bytes, received_ns: int) -> bool:
        """A data frame and when it was received, ns since the epoch.

        True: it was about trades. False: it may be about the connection, and the venue's `control` is asked.
        """

    def on_silent(self, link: VenueConnection, silent: bool) -> None:
        """No frame for half of `Limits.silence_s`, or a frame again after that."""

    def on_closed(
        self, link: VenueConnection, reason: Reason, detail: str, last_frame_ns: int | None, *, replaced: bool
    ) -> None:
        """Called last for each connection. `replaced`: another one is open and delivers all of its markets."""


async def run_session(
    venue: Venue,
    markets: Sequence[str],
    handler: SessionHandler,
    *,
    url: str,
    pace: RateLimiter,
    stopping: asyncio.Event,
    backoff: Callable[[], Backoff] = Backoff,
) -> None:
    """Keep all `markets` subscribed until `stopping` is set, or until the venue has refused all of them.

    `pace`: of messages to a venue that counts them by address; one for the process. `backoff` makes one for whatever
    is tried again.

    Raises:
        VenueError: connecting can never succeed, see `ashi_ingest.errors.classify_error`.

    """
    size = venue.limits.markets_per_connection
    connecting = RateLimiter(venue.limits.connect_interval_s)

    async def stop() -> None:
        await stopping.wait()
        raise _StoppedError

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
                        messages=pace if venue.limits.paced_by == "address" else None,
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
        failures = [error for error in errors.exceptions if not isinstance(error, _StoppedError)]
        if len(failures) == 1:
            raise failures[0] from None
        if failures:
            raise


class _StoppedError(Exception):
    """Ends the task group: all connections close."""


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
        self._links: set[VenueConnection] = set()

    async def run(self) -> None:
        """Open one after another. One that was due and could not be replaced stays until it ends by itself."""
        while self._markets:
            link = await self._open()
            await _first(link.closed, link.subscribed)
            if self._is_replaced(link) and not link.closed.done():
                await asyncio.wait([link.closed], timeout=OVERLAP_S)
            if not link.closed.done():
                for old in self._links - {link}:
                    old.retire()
                await _first(link.closed, link.due)
            lived = link.closed if link.closed.done() else link.due
            self._backoff.lived(lived.result())
            if self._markets:
                await asyncio.sleep(self._backoff.next_s())
        for link in self._links:  # that the venue refuses what it had once accepted
            link.drop(Reason.REFUSED)

    async def _open(self) -> VenueConnection:
        """Make a connection, in as many attempts as it takes."""
        while True:
            await self._handler.may_connect()
            await self._connecting.turn()
            try:
                socket = await self._connect()
            except (WebSocketException, OSError) as error:
                await self._failed(error)
            else:
                return self._link(socket)

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

    async def _failed(self, error: Exception) -> None:
        """Wait as long as is proper after this failure to connect. Raises VenueError when it is fatal."""
        verdict = classify_error(error)
        metrics.reconnects.labels(self._venue.name, verdict.reason).inc()
        if verdict.retry_after_s is None:
            raise VenueError(
                f"{self._venue.name}: no websocket connection can be made to {self._url} ({verdict.detail}). "
                "Correct ASHI_WEBSOCKET_URL if it is set; else look whether the venue serves this address"
            )
        wait_s = max(verdict.retry_after_s, self._backoff.next_s())
        _log.warning(
            "cannot connect, trying again",
            venue=self._venue.name,
            url=self._url,
            reason=str(verdict.reason),
            detail=verdict.detail,
            wait_s=round(wait_s, 3),
        )
        self._connecting.pause(verdict.retry_after_s)
        await asyncio.sleep(wait_s)

    def _link(self, socket: ClientConnection) -> VenueConnection:
        link = VenueConnection(
            self._venue,
            self._markets,
            self._handler,
            socket=socket,
            pace=self._messages or RateLimiter(self._venue.limits.message_interval_s),
            backoff=self._new_backoff(),
            on_refused=self._refused,
            is_replaced=self._is_replaced,
        )
        self._links.add(link)
        task = self._group.create_task(link.run())
        task.add_done_callback(partial(self._ended, link, socket))
        return link

    def _ended(self, link: VenueConnection, socket: ClientConnection, _: asyncio.Task[None]) -> None:
        self._links.discard(link)
        socket.transport.abort()  # the task may have been cancelled before it began

    def _is_replaced(self, link: VenueConnection) -> bool:
        return any(other.delivers for other in self._links if other is not link)

    def _refused(self, market: str, reason: str) -> None:
        if market in self._markets:  # else another connection of this chain was told before
            self._markets.remove(market)
            self._handler.on_refused(market, reason)


async def _first(*futures: asyncio.Future[None] | asyncio.Future[float]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
