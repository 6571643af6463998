"""What one connection has asked its venue for, and what came of it: the books of its subscriptions.

No I/O and no clock: the subscriber sends the messages and waits for the answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ashi_ingest.venues.base import Refused, Subscription, Venue


@dataclass(slots=True)
class Suspicions:
    """What a connection has learned of its markets, for the one that follows it.

    Attributes:
        markets: whose subscriptions the venue did not accept when they stood alone. The next connection asks for each
            of them alone and last, so that no other market waits for it.
        deaf: the venue answered nothing at all. A second time it is not the connection that is to blame, but perhaps
            one of its markets.

    """

    markets: set[str] = field(default_factory=set)
    deaf: bool = False


class RefusedMarkets(NamedTuple):
    """The markets of a message that the venue has refused.

    Attributes:
        markets: those that are still wanted, the culprit among them.
        culprit: the one that the refusal is about; None where that is not known, because there are several.

    """

    markets: list[str]
    culprit: str | None


class Subscriptions:
    """The markets that a connection is for, and the messages by which it has subscribed to them."""

    def __init__(self, venue: Venue, markets: Sequence[str], suspicions: Suspicions) -> None:
        self._venue = venue
        self._suspicions = suspicions
        self._markets = dict.fromkeys(markets)  # a set in the order of the markets
        self._unaccepted = set(markets)
        self._deferred: set[str] = set()
        self._next_id = 1
        self._sent: dict[int, Subscription] = {}
        self._unsubscriptions: set[int] = set()
        self._last_sent: Subscription | None = None

    @property
    def markets(self) -> tuple[str, ...]:
        """The markets it is for, without those that the venue has refused for good."""
        return tuple(self._markets)

    @property
    def accepted(self) -> set[str]:
        """Those of them that the venue has accepted."""
        return self._markets.keys() - self._unaccepted

    @property
    def settled(self) -> bool:
        """Whether each of them (at least one) was accepted, or was not although it was asked for alone."""
        return bool(self._markets) and self._unaccepted <= self._deferred

    def is_wanted(self, market: str) -> bool:
        """Whether the connection is for this market, and the venue has not accepted it yet."""
        return market in self._unaccepted

    def is_deferred(self, market: str) -> bool:
        """Whether the venue has not accepted it although it was asked for alone."""
        return market in self._deferred

    # Messages.

    def first_messages(self) -> list[Subscription]:
        """The messages that subscribe to all markets: what failed at the connection before comes alone and last."""
        suspects = [market for market in self._markets if market in self._suspicions.markets]
        messages = self.messages([market for market in self._markets if market not in self._suspicions.markets])
        for market in suspects:
            messages += self.messages([market])
        return messages

    def messages(self, markets: Sequence[str]) -> list[Subscription]:
        """The messages that subscribe to `markets`, with ids that no other message of the connection has."""
        subscriptions = self._venue.subscriptions(markets, self._next_id)
        self._next_id += len(subscriptions)
        return subscriptions

    def unsubscription(self, market: str) -> str | None:
        """The message that unsubscribes from a market, which goes out now; None where the venue has none."""
        message = self._venue.unsubscription(market, self._next_id)
        if message is not None:
            self._unsubscriptions.add(self._next_id)
            self._next_id += 1
            self._last_sent = None
        return message

    def parts(self, markets: Sequence[str], number: int) -> list[Subscription]:
        """The messages that subscribe to `markets` in so many parts (or as many as there are markets)."""
        size = -(-len(markets) // number)
        parts = (markets[first : first + size] for first in range(0, len(markets), size))
        return [subscription for part in parts for subscription in self.messages(part)]

    def still_wanted(self, subscription: Subscription) -> list[Subscription]:
        """The messages that now ask for what it asks for: less, if some of it is not wanted any more."""
        wanted = [market for market in subscription.markets if market in self._unaccepted]
        return [subscription] if len(wanted) == len(subscription.markets) else self.messages(wanted) if wanted else []

    def on_sent(self, subscription: Subscription) -> None:
        """It goes out now, perhaps once more."""
        self._sent[subscription.request_id] = self._last_sent = subscription

    # Answers.

    def sent(self, request_id: int) -> Subscription | None:
        """The message of that id, without the markets that have been asked for anew; None if it is no subscription."""
        return self._sent.get(request_id)

    def accept(self, markets: Iterable[str]) -> list[str]:
        """The venue has accepted these. Gives those of them that were not accepted before."""
        accepted = [market for market in markets if market in self._unaccepted]
        for known in (self._unaccepted, self._deferred, self._suspicions.markets):
            known.difference_update(accepted)
        return accepted

    def find(self, refused: Refused) -> Subscription | None:
        """The subscription that a refusal is about: that of its id, that of its market, or the one sent last."""
        if refused.request_id is not None:
            return self._sent.get(refused.request_id)
        if refused.market is not None:
            with_market = [sent for sent in self._sent.values() if refused.market in sent.markets]
            return with_market[-1] if with_market else None
        return self._last_sent

    def is_of_unsubscribing(self, refused: Refused) -> bool:
        """Whether a refusal is about a message that unsubscribed, which then had nothing to do."""
        if refused.request_id is not None:
            return refused.request_id in self._unsubscriptions
        return refused.market is None and self._last_sent is None and bool(self._unsubscriptions)

    def refuse(self, subscription: Subscription, market: str | None) -> RefusedMarkets:
        """The venue has refused it, because of `market` if it says so: nothing of it counts as accepted any more."""
        wanted = [each for each in subscription.markets if each in self._markets]
        self._unaccepted.update(wanted)
        culprit = market if market in wanted else wanted[0] if len(wanted) == 1 else None
        return RefusedMarkets(wanted, culprit)

    def defer(self, market: str) -> None:
        """The venue has not accepted it although it was asked for alone: nobody waits for it any more."""
        self._deferred.add(market)
        self._suspicions.markets.add(market)

    # Which markets.

    def add(self, markets: Iterable[str]) -> list[str]:
        """The connection is for these as well. Gives those that are new."""
        new = [market for market in markets if market not in self._markets]
        self._markets.update(dict.fromkeys(new))
        self._unaccepted.update(new)
        return new

    def renew(self, market: str) -> bool:
        """It is to be asked for anew, so answers to what was sent before do not count. False: it is not accepted."""
        if market not in self._markets or market in self._unaccepted:
            return False
        self._unaccepted.add(market)
        self._forget(market)
        return True

    def remove(self, market: str) -> None:
        """The connection is not for it any more."""
        self._markets.pop(market, None)
        self._unaccepted.discard(market)
        self._deferred.discard(market)
        self._suspicions.markets.discard(market)
        self._forget(market)

    def _forget(self, market: str) -> None:
        for request_id, sent in list(self._sent.items()):
            if market in sent.markets:
                left = tuple(each for each in sent.markets if each != market)
                if left:
                    self._sent[request_id] = sent._replace(markets=left)
                else:  # a connection may live for months, and a market be subscribed to many times
                    del self._sent[request_id]
