"""The one policy by which the connections of every venue live: connect, subscribe, renew, connect again.

    connect ── subscribe ──▶ subscribed ── its age, or the venue's announcement ──▶ connect the next one beside it
       ▲  ▲                      │                                                        │
       │  └── wait (backoff) ◀───┴── silence, an end, a drop                              ▼
       └──────────────── the next one is subscribed: the old one is read to its end and closed

Nothing here knows a trade: frames go to a `SessionHandler` as bytes. What differs between venues is in their `Limits`.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from ashi.contracts.errors import VenueError
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics
from ashi.runtime.retry import Backoff, retry
from ashi.runtime.service import StoppedError
from ashi.runtime.settings.parsers import bare_url
from ashi_ingest.errors import Reason, classify_error
from ashi_ingest.rate_limiter import RateLimiter
from ashi_ingest.websocket.connection import DRAIN_BOUND_S, VenueConnection
from ashi_ingest.websocket.frames import FrameConnection
from ashi_ingest.websocket.subscriptions import Suspicions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ashi_ingest.venues.base import Venue
    from ashi_ingest.websocket.handler import SessionHandler

OPEN_TIMEOUT_S: Final = 10.0
MAX_FRAME: Final = 4 * 1024 * 1024
"""Bytes. The largest frames of trades seen have some kilobytes; what is larger than this is no feed of trades."""
OVERLAP_S: Final = 1.0
"""How long two connections deliver the same markets at a renewal, from the last acknowledgment on: a venue may
acknowledge a subscription before each of its servers knows it."""
SENT_AWAY_S: Final = 60.0
"""How long to stay away when a venue that has let us in before says 401, 403, 404, 451 or the like."""
SPREAD: Final = 0.1
"""By how much longer, drawn evenly, than the least time is waited before the next attempt, as a share of it."""

_log = get_logger(__name__)


class Session:
    """The connections of one venue in this process, and the markets that they deliver, which may change meanwhile."""

    def __init__(
        self,
        venue: Venue,
        markets: Sequence[str],
        handler: SessionHandler,
        *,
        url: str,
        limiter: RateLimiter,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        """`limiter`: of messages to a venue that counts them by address; one for the process.

        `backoff` makes one for whatever is tried again.
        """
        self._size = venue.limits.markets_per_connection
        self._chains: dict[_Chain, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._waiting = list(markets)  # for `run`
        common = _Common(
            venue,
            handler,
            url=url,
            connecting=RateLimiter(venue.limits.connect_interval_s),
            messages=limiter if venue.limits.paced_by == "address" else None,
            new_backoff=backoff,
        )
        self._new_chain = partial(_Chain, common)

    @property
    def markets(self) -> list[str]:
        """Its markets, without those that the venue has refused."""
        return [*self._waiting, *(market for chain in self._chains for market in chain.markets)]

    def add(self, markets: Iterable[str]) -> None:
        """Subscribe to these as well: over open connections while they have room, then over another one."""
        known = set(self.markets)
        self._waiting += [market for market in dict.fromkeys(markets) if market not in known]
        if self._group is not None:
            self._begin(self._group)

    def remove(self, market: str) -> None:
        """Do not deliver a market any more. Nothing if it is none of the session. The handler is not told of it."""
        if market in self._waiting:
            self._waiting.remove(market)
        for chain in self._chains:
            chain.remove(market)

    async def run(self, stopping: asyncio.Event) -> None:
        """Keep all markets subscribed until `stopping` is set, or until none is left. It can be run again then.

        Raises:
            VenueError: connecting can never succeed, see `ashi_ingest.errors.classify_error`. Only before the first
                connection: what has been possible once is tried again for ever.

        """

        async def stop() -> None:
            await stopping.wait()
            raise StoppedError

        try:
            async with asyncio.TaskGroup() as group:
                stopper = group.create_task(stop())
                self._group = group
                self._begin(group)
                while self._chains:
                    await asyncio.wait(self._chains.values(), return_when=asyncio.FIRST_COMPLETED)
                    self._chains = {chain: task for chain, task in self._chains.items() if not task.done()}
                self._group = None
                stopper.cancel()
        except BaseExceptionGroup as errors:
            failures = [error for error in errors.exceptions if not isinstance(error, StoppedError)]
            if len(failures) == 1:
                raise failures[0] from None
            if failures:
                raise
        finally:
            self._group = None

    def _begin(self, group: asyncio.TaskGroup) -> None:
        """Give what waits to the connections that have room, then to new ones."""
        for chain in self._chains:
            room = 0 if chain.ended else self._size - len(chain.markets)
            if room > 0 and self._waiting:
                chain.add(self._waiting[:room])
                del self._waiting[:room]
        while self._waiting:
            chain = self._new_chain(self._waiting[: self._size], group)
            del self._waiting[: self._size]
            self._chains[chain] = group.create_task(chain.run())


class _CannotConnectError(Exception):
    """No connection could be made; the next attempt, not before `retry_after_s` seconds, may succeed."""

    def __init__(self, reason: Reason, detail: str, retry_after_s: float) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s


class _NoMarketsError(Exception):
    """No connection is needed any more."""


@dataclass(slots=True)
class _Common:
    """What all connections of a session share.

    Attributes:
        messages: the pace of messages where the venue counts them by address; else each connection has its own.
        has_connected: a connection could be made once, so the URL is right and what fails now will pass.

    """

    venue: Venue
    handler: SessionHandler
    url: str
    connecting: RateLimiter
    messages: RateLimiter | None
    new_backoff: Callable[[], Backoff]
    has_connected: bool = False


class _Chain:
    """The markets of one connection, and the connections that follow each other to deliver them.

    Attributes:
        ended: it takes no more markets.

    """

    def __init__(self, common: _Common, markets: Sequence[str], group: asyncio.TaskGroup) -> None:
        self.ended = False
        self._common = common
        self._venue = common.venue
        self._handler = common.handler
        self._markets = list(markets)
        self._backoff = common.new_backoff()
        self._group = group
        self._suspicions = Suspicions()
        self._retiring: asyncio.TimerHandle | None = None
        self._connections: set[VenueConnection] = set()

    @property
    def markets(self) -> tuple[str, ...]:
        """Its markets, without those that the venue has refused."""
        return tuple(self._markets)

    def add(self, markets: Sequence[str]) -> None:
        """Deliver these as well."""
        self._markets += markets
        for connection in self._connections:
            connection.add(markets)

    def remove(self, market: str) -> None:
        """Do not deliver a market any more."""
        if market in self._markets:
            self._markets.remove(market)
            for connection in self._connections:
                connection.remove(market)

    async def run(self) -> None:
        """Open one after another. One that was due and could not be replaced stays until it ends by itself."""
        try:
            await self._follow()
        finally:
            self.ended = True
        for connection in self._connections:  # the venue refuses what it had once accepted
            connection.drop(Reason.REFUSED)

    async def _follow(self) -> None:
        while self._markets:
            try:
                connection = await self._open()
            except _NoMarketsError:
                return
            await _first(connection.closed, connection.subscribed)
            if not connection.closed.done():
                await _first(connection.closed, connection.due)
            lived = connection.closed if connection.closed.done() else connection.due
            self._backoff.lived(lived.result())
            if self._markets:
                await asyncio.sleep(self._backoff.next_s())

    async def _open(self) -> VenueConnection:
        """Make a connection, in as many attempts as it takes. Raises VenueError when none can succeed."""
        socket = await retry(
            self._attempt,
            least_wait_s=_least_wait_s,
            backoff=self._backoff,
            on_wait=self._on_wait,
        )
        return self._begin(socket)

    async def _attempt(self) -> FrameConnection:
        await self._handler.may_connect()
        await self._common.connecting.turn()
        if not self._markets:
            raise _NoMarketsError
        try:
            socket = await self._connect()
        except (WebSocketException, OSError) as error:
            error_class = classify_error(error)
        else:
            self._common.has_connected = True
            return socket
        metrics.reconnects.labels(self._venue.name, error_class.reason).inc()
        after_s = error_class.retry_after_s
        if after_s is None:
            if not self._common.has_connected:
                raise VenueError(
                    f"{self._venue.name}: no websocket connection can be made to {bare_url(self._common.url)} "
                    f"({error_class.detail}). Correct ASHI_WEBSOCKET_URL if it is set; else look whether the venue "
                    "serves this address"
                )
            after_s = max(SENT_AWAY_S, error_class.asked_s)
        self._common.connecting.pause(after_s)
        raise _CannotConnectError(error_class.reason, error_class.detail, after_s)

    async def _connect(self) -> FrameConnection:
        ping_s = self._venue.limits.ping_interval_s
        socket = await connect(
            self._common.url,
            compression=None,
            max_size=MAX_FRAME,
            create_connection=partial(FrameConnection, max_frame=MAX_FRAME),  # type: ignore[arg-type]  # it calls it
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=DRAIN_BOUND_S,
            ping_interval=ping_s,
            ping_timeout=ping_s,
            user_agent_header="ashi",
        )
        assert isinstance(socket, FrameConnection)  # noqa: S101
        return socket

    def _on_wait(self, error: Exception, wait_s: float) -> None:
        assert isinstance(error, _CannotConnectError)  # noqa: S101
        _log.warning(
            "cannot connect, trying again",
            venue=self._venue.name,
            url=bare_url(self._common.url),
            reason=str(error.reason),
            detail=error.detail,
            wait_s=round(wait_s, 3),
        )
        self._handler.on_cannot_connect(self.markets, error.reason, error.detail)

    def _begin(self, socket: FrameConnection) -> VenueConnection:
        connection = VenueConnection(
            self._venue,
            self._markets,
            self._handler,
            socket=socket,
            limiter=self._common.messages or RateLimiter(self._venue.limits.message_interval_s),
            new_backoff=self._common.new_backoff,
            suspicions=self._suspicions,
            on_refused=self._refused,
            on_settling=self._on_settling,
            is_replaced=self._is_replaced,
        )
        self._connections.add(connection)
        task = self._group.create_task(connection.run())
        task.add_done_callback(partial(self._ended, connection, socket))
        return connection

    def _ended(self, connection: VenueConnection, socket: FrameConnection, _: asyncio.Task[None]) -> None:
        self._connections.discard(connection)
        socket.transport.abort()  # the task may have been cancelled before it began

    def _is_replaced(self, connection: VenueConnection) -> bool:
        return any(other.delivers for other in self._connections if other is not connection)

    def _on_settling(self) -> None:
        """So long after the last change an old connection may bring nothing that a newer one does not."""
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


def _least_wait_s(error: Exception) -> float | None:
    """Spread, besides the backoff, because many connections of many processes may have been told the same time."""
    if not isinstance(error, _CannotConnectError):
        return None
    return error.retry_after_s * random.uniform(1.0, 1.0 + SPREAD)  # noqa: S311


async def _first(*futures: asyncio.Future[None] | asyncio.Future[float]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
