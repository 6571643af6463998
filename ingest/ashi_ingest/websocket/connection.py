"""One websocket connection to a venue: it subscribes, reads, and watches itself, until it ends.

What follows from its end is not decided here, but by the session that has opened it.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

from websockets.exceptions import ConnectionClosed

from ashi.runtime.logs import get_logger
from ashi_ingest.errors import Reason, classify_error
from ashi_ingest.venues.base import Acknowledged, Closing, Refused
from ashi_ingest.websocket.subscriber import Subscriber
from ashi_ingest.websocket.subscriptions import Subscriptions

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from ashi.runtime.retry import Backoff
    from ashi_ingest.rate_limiter import RateLimiter
    from ashi_ingest.venues.base import Control, Venue
    from ashi_ingest.websocket.frames import FrameConnection
    from ashi_ingest.websocket.handler import SessionHandler
    from ashi_ingest.websocket.subscriptions import Suspicions

CLOSE_BOUND_S: Final = 0.5
"""How long the closing handshake may take of a connection whose frames are not wanted any more."""
DRAIN_BOUND_S: Final = 5.0
"""How long it may take of one that is replaced: what the venue sent before it is still read."""
RENEW_BETWEEN: Final = (0.8, 0.9)
"""Shares of the venue's lifetime. A random one, so that connections opened together are not renewed together, and
early enough to try again for a while when the next one cannot be opened."""
FRAMES_PER_TURN: Final = 128
"""After so many frames the other tasks have their turn: `recv_many` does not wait while there are frames."""

_numbers = count(1)
_log = get_logger(__name__)


class _End(NamedTuple):
    reason: Reason
    detail: str


class VenueConnection:
    """One websocket connection.

    Attributes:
        number: counts from 1 in the process.
        subscribed: done when every market is subscribed, refused for good, or deferred: asked for alone, and not
            accepted for now.
        due: done when the next connection is to be opened; its age then, seconds.
        closed: done when it has ended, after `on_closed`; how long it lived, seconds, and 0 if it delivered nothing.

    """

    def __init__(
        self,
        venue: Venue,
        markets: Sequence[str],
        handler: SessionHandler,
        *,
        socket: FrameConnection,
        limiter: RateLimiter,
        new_backoff: Callable[[], Backoff],
        suspicions: Suspicions,
        on_refused: Callable[[str, str], None],
        on_settling: Callable[[], None],
        is_replaced: Callable[[VenueConnection], bool],
    ) -> None:
        """`limiter`: of the messages to the venue. `new_backoff`: of subscriptions that it does not accept for now.

        `suspicions`: what the connections of these markets have learned of them. `on_refused` is told of a market that
        the venue does not have, and why; `on_settling` when one was accepted or deferred. `is_replaced`: asked when it
        ends.
        """
        loop = asyncio.get_running_loop()
        self.number = next(_numbers)
        self.subscribed: asyncio.Future[None] = loop.create_future()
        self.due: asyncio.Future[float] = loop.create_future()
        self.closed: asyncio.Future[float] = loop.create_future()
        self._venue = venue
        self._limits = venue.limits
        self._books = Subscriptions(venue, markets, suspicions)
        self._subscriber = Subscriber(venue, self._books, self, limiter=limiter, new_backoff=new_backoff)
        self._suspicions = suspicions
        self._handler = handler
        self._socket = socket
        self._on_refused = on_refused
        self._on_settling = on_settling
        self._is_replaced = is_replaced
        self._over: asyncio.Future[_End] = loop.create_future()
        self._open = True
        self._retired = False
        self._silent = False
        self._delivered = False
        self._opened_s = self._heard_s = time.monotonic()
        self._last_frame_ns: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def markets(self) -> tuple[str, ...]:
        """The markets it is for, without those that the venue has refused."""
        return self._books.markets

    @property
    def accepted(self) -> set[str]:
        """Those of them that the venue has accepted."""
        return self._books.accepted

    @property
    def delivers(self) -> bool:
        """It is open, and all of its markets are subscribed but for those that the venue does not accept for now."""
        return self._open and self.subscribed.done()

    def resubscribe(self, market: str) -> None:
        """Unsubscribe from a market and subscribe again, see `Connection`."""
        if self._open:
            self._subscriber.resubscribe(market)

    def has_traded(self, market: str) -> None:
        """A trade of this market has come, see `Connection`."""
        if self._open:
            self._subscriber.on_traded(market)

    def add(self, markets: Iterable[str]) -> None:
        """Subscribe to these as well."""
        if self._open:
            self._subscriber.add(markets)

    def remove(self, market: str) -> None:
        """The market is not wanted any more."""
        if self._open:
            self._subscriber.remove(market)
            if not self.markets:
                self._finish(_End(Reason.UNUSED, "none of its markets is wanted any more"))
            self._check_subscribed()

    def drop(self, reason: Reason) -> None:
        """Close it on purpose; the session opens another one afterwards. No frame of it is handed over any more."""
        self._finish(_End(reason, "closed on purpose"))

    def retire(self) -> None:
        """Close it because the next one delivers; what the venue has sent until then is still handed over."""
        if not self._retired:
            self._retired = True
            self.start(self._socket.close())

    async def run(self) -> None:
        """Deliver until it ends. Whatever the handler raises is raised; cancelled, it closes as for a stop."""
        end = _End(Reason.STOPPED, "the process stops")
        renewal = None
        try:
            _log.info("connected", venue=self._venue.name, link=self.number, markets=len(self.markets))
            self._handler.on_open(self)
            if self._limits.lifetime_s is not None:
                age_s = self._limits.lifetime_s * random.uniform(*RENEW_BETWEEN)  # noqa: S311
                renewal = asyncio.get_running_loop().call_later(age_s, self._fall_due)
            self.start(self._read())
            self.start(self._subscribe())
            end = await self._over
        finally:
            self._open = False
            if renewal is not None:
                renewal.cancel()
            for task in self._tasks:
                task.cancel()
            replaced = self._is_replaced(self)
            _log.info(
                "connection ended", link=self.number, reason=str(end.reason), detail=end.detail, replaced=replaced
            )
            self._handler.on_closed(self, end.reason, end.detail, self._last_frame_ns, replaced=replaced)
            self.closed.set_result(self._age_s() if self._delivered else 0.0)
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_BOUND_S):
                    await self._socket.close()

    def start(self, part: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run something until the connection ends; what it raises ends the connection."""
        task = asyncio.get_running_loop().create_task(part)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._over.done():
            self._open = False
            self._over.set_exception(error)

    def _finish(self, end: _End) -> None:
        self._open = False
        if not self._over.done():
            self._over.set_result(end)

    def _fall_due(self) -> None:
        if not self.due.done():
            self.due.set_result(self._age_s())

    def _age_s(self) -> float:
        return time.monotonic() - self._opened_s

    # Reading

    async def _read(self) -> None:
        recv_many = self._socket.recv_many
        taken = 0
        try:
            while True:
                frames, received_ns = await recv_many()
                for begin in range(0, len(frames), FRAMES_PER_TURN):
                    part = frames[begin : begin + FRAMES_PER_TURN]
                    if taken + len(part) > FRAMES_PER_TURN:
                        await asyncio.sleep(0)
                        taken = 0
                    if not self._open:
                        return
                    taken += len(part)
                    self._on_frames(part, received_ns + begin)
        except ConnectionClosed as error:
            error_class = classify_error(error)
            if self._retired:
                self._finish(_End(Reason.RENEWED, "the next connection has taken over"))
            else:
                self._finish(_End(error_class.reason, error_class.detail))

    def _on_frames(self, frames: Sequence[bytes], received_ns: int) -> None:
        """`received_ns`: when the first of them came; each of the others a nanosecond later, so that it names one."""
        self._last_frame_ns = received_ns + len(frames) - 1
        self._heard_s = time.monotonic()
        if self._silent:
            self._silent = False
            self._handler.on_silent(self, False)
        at = 0
        while at < len(frames) and self._open:
            of_trades = self._handler.on_frames(self, frames[at:] if at else frames, received_ns + at)
            if of_trades:
                self._delivered = True
            at += of_trades
            if at < len(frames) and (message := self._venue.control(frames[at])) is not None:
                self._on_control(message)
            at += 1

    def _on_control(self, message: Control) -> None:
        match message:
            case Acknowledged(request_id):
                self._subscriber.on_acknowledged(request_id)
            case Refused():
                self._subscriber.on_refused(message)
            case Closing(reason):
                _log.info("the venue will close a connection", link=self.number, reason=reason)
                self._fall_due()

    async def _watch(self) -> None:
        """Tell of silence, and end the connection when it lasts.

        Silence begins with the last frame, or with the last message that asked for a market for the first time.
        """
        silence_s = self._limits.silence_s
        while True:
            quiet_s = time.monotonic() - self._heard_s
            if quiet_s >= silence_s:
                self._finish(_End(Reason.SILENT, f"nothing came for {silence_s:g} s"))
                return
            if quiet_s >= silence_s / 2 and not self._silent:
                self._silent = True
                self._handler.on_silent(self, True)
            await asyncio.sleep((silence_s if self._silent else silence_s / 2) - quiet_s)

    # Subscribing

    async def _subscribe(self) -> None:
        if not self.markets:
            self._finish(_End(Reason.UNUSED, "none of its markets is wanted any more"))
        for number, subscription in enumerate(self._books.first_messages()):
            await self._subscriber.send(subscription)
            self._heard_s = time.monotonic()
            if number == 0:  # not before: the venue has nothing to say, and our first turn may be long to come
                self.start(self._watch())

    async def send(self, message: str) -> None:
        """Send a message now. Nothing is raised when the connection has ended."""
        with suppress(ConnectionClosed):  # the reader tells
            await self._socket.send(message)

    def on_accepted(self, markets: Sequence[str]) -> None:
        """The venue has accepted these."""
        self._suspicions.deaf = False
        self._handler.on_subscribed(self, markets)
        self._check_subscribed()
        self._on_settling()

    def on_deferred(self, market: str, reason: str) -> None:
        """The venue does not accept this one for now."""
        self._handler.on_deferred(self, market, reason)
        self._check_subscribed()
        self._on_settling()

    def on_given_up(self, market: str, reason: str) -> None:
        """There is no such market."""
        self._on_refused(market, reason)
        if not self.markets:
            self._finish(_End(Reason.REFUSED, reason))
        self._check_subscribed()

    def on_unanswered(self, detail: str) -> bool:
        """Give the connection up if nothing at all has come over it; but not when the one before was like that."""
        if self._last_frame_ns is not None or self._suspicions.deaf:
            return False
        self._suspicions.deaf = True
        self._finish(_End(Reason.UNANSWERED, detail))
        return True

    def _check_subscribed(self) -> None:
        if self._books.settled and not self.subscribed.done():
            self.subscribed.set_result(None)
