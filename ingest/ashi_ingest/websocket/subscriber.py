"""Subscribing over one connection: at the venue's pace, and so that one bad market does not hurt its neighbours.

a message ── accepted ──▶ its markets are subscribed
   ▲  ├── refused, of several markets ──▶ its halves, at once while others are accepted, else after a growing wait
   │  ├── not answered, of several ─────▶ its eighths
   │  └── of one market: refused for now, or not answered ──▶ deferred: it waits, ever longer, by itself
   └───────────────────────────────────────┘
refused for good, and it is known which market: that one is given up
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from ashi.runtime.retry import Backoff
    from ashi_ingest.rate_limiter import RateLimiter
    from ashi_ingest.venues.base import Refused, Subscription, Venue
    from ashi_ingest.websocket.subscriptions import Subscriptions

HALVES: Final = 2
"""Parts of a message that was refused: an answer comes at once, so this is the least number of messages."""
EIGHTHS: Final = 8
"""Parts of one that was not answered: that costs `Limits.refusal_s` each time, so a market of 200 is found in three
rounds, not in eight."""

_log = get_logger(__name__)


class SubscriberOwner(Protocol):
    """The connection, as its subscriber needs it."""

    @property
    def number(self) -> int:
        """It counts from 1 in the process."""

    async def send(self, message: str) -> None:
        """Send a message now. Nothing is raised when the connection has ended."""

    def start(self, part: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run something until the connection ends; what it raises ends the connection."""

    def on_accepted(self, markets: Sequence[str]) -> None:
        """The venue has accepted these."""

    def on_deferred(self, market: str, reason: str) -> None:
        """The venue does not accept this one for now; it is asked for again."""

    def on_given_up(self, market: str, reason: str) -> None:
        """There is no such market."""

    def on_unanswered(self, detail: str) -> bool:
        """A message was not answered. True when the connection ends because of it."""


class Subscriber:
    """Sends the subscriptions of one connection, and does what their answers ask for."""

    def __init__(
        self,
        venue: Venue,
        books: Subscriptions,
        owner: SubscriberOwner,
        *,
        limiter: RateLimiter,
        new_backoff: Callable[[], Backoff],
    ) -> None:
        """`limiter`: of the messages to the venue."""
        self._venue = venue
        self._limits = venue.limits
        self._books = books
        self._owner = owner
        self._limiter = limiter
        self._new_backoff = new_backoff
        self._backoff = new_backoff()  # of messages of several markets; any acceptance resets it
        self._backoffs: dict[str, Backoff] = {}  # of each market that is deferred
        self._answers: dict[int, asyncio.Task[None]] = {}

    # Asking.

    async def send(self, subscription: Subscription, after_s: float = 0.0) -> None:
        """Subscribe, when it is this message's turn, to what is still wanted of it."""
        await asyncio.sleep(after_s)
        for message in self._books.still_wanted(subscription):
            await self._limiter.turn()
            self._books.on_sent(message)
            self._answers[message.request_id] = self._owner.start(self._await_answer(message))
            await self._owner.send(message.message)

    def add(self, markets: Iterable[str]) -> None:
        """Subscribe to these as well."""
        self._send_all(self._books.messages(self._books.add(markets)))

    def remove(self, market: str) -> None:
        """Unsubscribe from a market, where the venue has a message for that."""
        self._books.remove(market)
        self._backoffs.pop(market, None)
        self._owner.start(self._unsubscribe(market))

    def resubscribe(self, market: str) -> None:
        """Unsubscribe from a market and subscribe again. Nothing if it is not accepted: then it is asked for anyway."""
        if self._books.renew(market):
            self._owner.start(self._resubscribe(market))

    async def _resubscribe(self, market: str) -> None:
        await self._unsubscribe(market)
        for subscription in self._books.messages([market]):
            await self.send(subscription)

    async def _unsubscribe(self, market: str) -> None:
        await self._limiter.turn()
        message = self._books.unsubscription(market)
        if message is not None:
            await self._owner.send(message)

    def _send_all(self, subscriptions: Sequence[Subscription], after_s: float = 0.0) -> None:
        async def send_in_order() -> None:
            await asyncio.sleep(after_s)
            for subscription in subscriptions:
                await self.send(subscription)

        self._owner.start(send_in_order())

    # What the venue answers.

    def on_acknowledged(self, request_id: int) -> None:
        """It has accepted the message of that id. One that comes late counts as well."""
        subscription = self._books.sent(request_id)
        if subscription is not None:
            self._accept(subscription)

    def on_traded(self, market: str) -> None:
        """A trade of it came. So the venue has subscribed to it, if that was not answered."""
        if self._books.is_deferred(market):
            self._accept_markets([market])

    def on_refused(self, refused: Refused) -> None:
        """It has refused a message."""
        subscription = self._books.find(refused)
        if subscription is None:
            if not self._books.is_of_unsubscribing(refused):
                _log.warning("the venue refuses what was not asked for", link=self._owner.number, reason=refused.reason)
            return
        self._answered(subscription)
        self._count("refused")
        markets, culprit = self._books.refuse(subscription, refused.market)
        if culprit is None:
            wait_s = self._backoff.next_s() if refused.retryable else 0.0
            self._divide(markets, HALVES, wait_s, refused.reason)
            return
        markets.remove(culprit)
        if refused.retryable:
            self._defer(culprit, refused.reason, None if markets else subscription)
        else:
            self._give_up(culprit, refused.reason)
        if markets:
            self._send_all(self._books.parts(markets, HALVES))

    async def _await_answer(self, subscription: Subscription) -> None:
        await asyncio.sleep(self._limits.refusal_s)
        self._answers.pop(subscription.request_id, None)
        if not self._limits.acknowledges:
            self._accept(subscription)
            return
        markets = [market for market in subscription.markets if self._books.is_wanted(market)]
        if not markets:
            return
        self._count("unanswered")
        reason = f"no answer in {self._limits.refusal_s:g} s to subscribing"
        if self._owner.on_unanswered(f"{reason} {', '.join(markets)}"):
            return
        if len(markets) == 1:
            self._defer(markets[0], reason, subscription)
        else:
            self._divide(markets, EIGHTHS, 0.0, reason)

    def _answered(self, subscription: Subscription) -> None:
        if (answer := self._answers.pop(subscription.request_id, None)) is not None:
            answer.cancel()

    def _accept(self, subscription: Subscription) -> None:
        self._answered(subscription)
        self._count("accepted")
        self._backoff.reset()
        self._accept_markets(subscription.markets)

    def _accept_markets(self, markets: Iterable[str]) -> None:
        accepted = self._books.accept(markets)
        for market in accepted:
            if self._backoffs.pop(market, None) is not None:
                _log.info("a market is subscribed after all", link=self._owner.number, market=market)
        if accepted:
            self._owner.on_accepted(accepted)

    def _divide(self, markets: Sequence[str], parts: int, wait_s: float, reason: str) -> None:
        _log.warning(
            "a subscription to several markets fails, asking for parts of them",
            venue=self._venue.name,
            link=self._owner.number,
            markets=len(markets),
            reason=reason,
            wait_s=round(wait_s, 3),
        )
        self._send_all(self._books.parts(markets, parts), wait_s)

    def _defer(self, market: str, reason: str, subscription: Subscription | None) -> None:
        """Ask for it again after a wait of its own, by the same message if that asked for it alone."""
        wait_s = self._backoffs.setdefault(market, self._new_backoff()).next_s()
        if not self._books.is_deferred(market):  # feed.status says what goes on
            _log.warning(
                "a market is not subscribed, it is tried again ever more seldom; the others go on",
                venue=self._venue.name,
                link=self._owner.number,
                market=market,
                reason=reason,
            )
        alone = subscription is not None and subscription.markets == (market,)
        self._books.defer(market)
        self._send_all([subscription] if subscription and alone else self._books.messages([market]), wait_s)
        self._owner.on_deferred(market, reason)

    def _give_up(self, market: str, reason: str) -> None:
        self._books.remove(market)
        self._owner.on_given_up(market, reason)

    def _count(self, outcome: str) -> None:
        metrics.subscriptions.labels(self._venue.name, outcome).inc()
