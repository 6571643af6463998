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
from ashi.runtime.metrics import ingest as metrics
from ashi_ingest.errors import Reason, classify_error
from ashi_ingest.venues.base import Acknowledged, Closing, Refused
from ashi_ingest.websocket.subscriptions import Subscriptions

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from websockets.asyncio.client import ClientConnection

    from ashi.runtime.retry import Backoff
    from ashi_ingest.rate_limiter import RateLimiter
    from ashi_ingest.venues.base import Control, Subscription, Venue
    from ashi_ingest.websocket.handler import SessionHandler

CLOSE_BOUND_S: Final = 0.5
"""How long the closing handshake may take of a connection whose frames are not wanted any more."""
DRAIN_BOUND_S: Final = 5.0
"""How long it may take of one that is replaced: what the venue sent before it is still read."""
RENEW_BETWEEN: Final = (0.8, 0.9)
"""Shares of the venue's lifetime. A random one, so that connections opened together are not renewed together, and
early enough to try again for a while when the next one cannot be opened."""
FRAMES_PER_TURN: Final = 64
"""After so many frames the other tasks have their turn: `recv` does not wait while there are frames."""

_numbers = count(1)
_log = get_logger(__name__)


class _End(NamedTuple):
    reason: Reason
    detail: str


class VenueConnection:
    """One websocket connection.

    Attributes:
        number: counts from 1 in the process.
        subscribed: done when every market is subscribed, or refused for good.
        due: done when the next connection is to be opened; its age then, seconds.
        closed: done when it has ended, after `on_closed`; how long it lived, seconds, and 0 if it delivered nothing.

    """

    def __init__(
        self,
        venue: Venue,
        markets: Sequence[str],
        handler: SessionHandler,
        *,
        socket: ClientConnection,
        limiter: RateLimiter,
        backoff: Backoff,
        on_refused: Callable[[str, str], None],
        is_replaced: Callable[[VenueConnection], bool],
    ) -> None:
        """`limiter`: of the messages to the venue. `backoff`: of subscriptions that the venue refuses for now.

        `on_refused` is told of a market that the venue does not have, and why. `is_replaced`: asked when it ends.
        """
        loop = asyncio.get_running_loop()
        self.number = next(_numbers)
        self.subscribed: asyncio.Future[None] = loop.create_future()
        self.due: asyncio.Future[float] = loop.create_future()
        self.closed: asyncio.Future[float] = loop.create_future()
        self._venue = venue
        self._limits = venue.limits
        self._subscriptions = Subscriptions(venue, markets)
        self._handler = handler
        self._socket = socket
        self._limiter = limiter
        self._backoff = backoff
        self._on_refused = on_refused
        self._is_replaced = is_replaced
        self._over: asyncio.Future[_End] = loop.create_future()
        self._open = True
        self._retired = False
        self._silent = False
        self._delivered = False
        self._opened_s = self._heard_s = time.monotonic()
        self._last_frame_ns: int | None = None
        self._answers: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def markets(self) -> tuple[str, ...]:
        """The markets it is for, without those that the venue has refused."""
        return self._subscriptions.markets

    @property
    def delivers(self) -> bool:
        """It is open, and all of its markets are subscribed."""
        return self._open and self.subscribed.done()

    def drop(self, reason: Reason) -> None:
        """Close it on purpose; the session opens another one afterwards. No frame of it is handed over any more."""
        self._finish(_End(reason, "closed on purpose"))

    def retire(self) -> None:
        """Close it because the next one delivers; what the venue has sent until then is still handed over."""
        if not self._retired:
            self._retired = True
            self._start(self._socket.close())

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
            self._start(self._read())
            self._start(self._subscribe())
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

    def _start(self, part: Coroutine[None, None, None]) -> asyncio.Task[None]:
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
        recv, on_frame, control = self._socket.recv, self._handler.on_frame, self._venue.control
        frames = 0
        try:
            while True:
                frame = await recv(decode=False)
                if not self._open:
                    return
                self._last_frame_ns = received_ns = time.time_ns()
                self._heard_s = time.monotonic()
                if self._silent:
                    self._silent = False
                    self._handler.on_silent(self, False)
                if on_frame(self, frame, received_ns):
                    self._delivered = True
                elif (message := control(frame)) is not None:
                    self._on_control(message)
                frames += 1
                if frames % FRAMES_PER_TURN == 0:
                    await asyncio.sleep(0)
        except ConnectionClosed as error:
            error_class = classify_error(error)
            if self._retired:
                self._finish(_End(Reason.RENEWED, "the next connection has taken over"))
            else:
                self._finish(_End(error_class.reason, error_class.detail))

    def _on_control(self, message: Control) -> None:
        match message:
            case Acknowledged(request_id):
                if request_id in self._answers:
                    self._accept(self._subscriptions.sent(request_id))
            case Refused():
                self._refused(message)
            case Closing(reason):
                _log.info("the venue will close a connection", link=self.number, reason=reason)
                self._fall_due()

    async def _watch(self) -> None:
        """Tell of silence, and end the connection when it lasts. Silence begins with the last frame or message."""
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
        for number, subscription in enumerate(self._subscriptions.messages(self.markets)):
            await self._send(subscription)
            if number == 0:  # not before: the venue has nothing to say, and our first turn may be long to come
                self._start(self._watch())

    async def _send(self, subscription: Subscription, after_s: float = 0.0) -> None:
        await asyncio.sleep(after_s)
        await self._limiter.turn()
        self._subscriptions.on_sent(subscription)
        self._heard_s = time.monotonic()
        self._answers[subscription.request_id] = self._start(self._await_answer(subscription))
        with suppress(ConnectionClosed):  # the reader tells
            await self._socket.send(subscription.message)

    async def _send_one_by_one(self, markets: Sequence[str]) -> None:
        for market in markets:
            for subscription in self._subscriptions.messages([market]):
                await self._send(subscription)

    async def _await_answer(self, subscription: Subscription) -> None:
        await asyncio.sleep(self._limits.refusal_s)
        del self._answers[subscription.request_id]
        if not self._limits.acknowledges:
            self._accept(subscription)
            return
        self._count("unanswered")
        names = ", ".join(subscription.markets)
        self._finish(_End(Reason.UNANSWERED, f"no answer in {self._limits.refusal_s:g} s to subscribing {names}"))

    def _answered(self, subscription: Subscription) -> None:
        if (answer := self._answers.pop(subscription.request_id, None)) is not None:
            answer.cancel()

    def _accept(self, subscription: Subscription) -> None:
        self._answered(subscription)
        self._count("accepted")
        self._backoff.reset()
        accepted = self._subscriptions.accept(subscription)
        if accepted:
            self._handler.on_subscribed(self, accepted)
        self._check_subscribed()

    def _refused(self, refused: Refused) -> None:
        subscription = self._subscriptions.find(refused)
        if subscription is None:
            _log.warning("the venue refuses what was not asked for", link=self.number, reason=refused.reason)
            return
        self._answered(subscription)
        self._count("refused")
        markets, culprit = self._subscriptions.refuse(subscription, refused.market)
        if refused.retryable:
            wait_s = self._backoff.next_s()
            _log.warning("subscription refused, trying again", link=self.number, reason=refused.reason, wait_s=wait_s)
            self._start(self._send(subscription, wait_s))
            return
        if culprit is not None:
            self._give_up(culprit, refused.reason)
            markets.remove(culprit)
        self._start(self._send_one_by_one(markets))

    def _give_up(self, market: str, reason: str) -> None:
        self._subscriptions.give_up(market)
        self._on_refused(market, reason)
        if not self.markets:
            self._finish(_End(Reason.REFUSED, reason))
        self._check_subscribed()

    def _check_subscribed(self) -> None:
        if self._subscriptions.complete and not self.subscribed.done():
            self.subscribed.set_result(None)

    def _count(self, outcome: str) -> None:
        metrics.subscriptions.labels(self._venue.name, outcome).inc()
