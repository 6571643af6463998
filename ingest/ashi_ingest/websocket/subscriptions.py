"""What one connection has asked its venue for, and what came of it: the books of its subscriptions.

No I/O and no clock: the connection sends the messages and waits for the answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi_ingest.venues.base import Refused, Subscription, Venue


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

    def __init__(self, venue: Venue, markets: Sequence[str]) -> None:
        self._venue = venue
        self._markets = list(markets)
        self._unaccepted = set(markets)
        self._next_id = 1
        self._sent: dict[int, Subscription] = {}
        self._last_sent: Subscription | None = None

    @property
    def markets(self) -> tuple[str, ...]:
        """The markets it is for, without those that the venue has refused for good."""
        return tuple(self._markets)

    @property
    def complete(self) -> bool:
        """Whether all of them (at least one) have been accepted."""
        return bool(self._markets) and not self._unaccepted

    def messages(self, markets: Sequence[str]) -> list[Subscription]:
        """The messages that subscribe to `markets`, with ids that no other message of the connection has."""
        subscriptions = self._venue.subscriptions(markets, self._next_id)
        self._next_id += len(subscriptions)
        return subscriptions

    def on_sent(self, subscription: Subscription) -> None:
        """It goes out now, perhaps once more."""
        self._sent[subscription.request_id] = self._last_sent = subscription

    def sent(self, request_id: int) -> Subscription:
        """The message of that id. Raises KeyError when none was sent."""
        return self._sent[request_id]

    def accept(self, subscription: Subscription) -> list[str]:
        """The venue has accepted it. Gives the markets of it that were not accepted before."""
        accepted = [market for market in subscription.markets if market in self._unaccepted]
        self._unaccepted.difference_update(accepted)
        return accepted

    def find(self, refused: Refused) -> Subscription | None:
        """The subscription that a refusal is about: that of its id, that of its market, or the one sent last."""
        if refused.request_id is not None:
            return self._sent.get(refused.request_id)
        if refused.market is not None:
            with_market = [sent for sent in self._sent.values() if refused.market in sent.markets]
            return with_market[-1] if with_market else None
        return self._last_sent

    def refuse(self, subscription: Subscription, market: str | None) -> RefusedMarkets:
        """The venue has refused it, because of `market` if it says so: nothing of it counts as accepted any more."""
        wanted = [each for each in subscription.markets if each in self._markets]
        self._unaccepted.update(wanted)
        culprit = market if market in wanted else wanted[0] if len(wanted) == 1 else None
        return RefusedMarkets(wanted, culprit)

    def give_up(self, market: str) -> None:
        """There is no such market: the connection is not for it any more."""
        self._markets.remove(market)
        self._unaccepted.discard(market)
