"""The feeds of a worker that runs, and its session, as one: markets begin and end in both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ashi.contracts.symbol import make_symbol
from ashi_ingest.feed.reporting.reported import read_feed
from ashi_ingest.feed.symbol.checked import uncompared_since
from ashi_ingest.feed.symbol.resume import read_resume_points

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ashi.contracts.trade import Trade
    from ashi.runtime.settings import Settings
    from ashi_ingest.feed.reporting.status import FeedReporter
    from ashi_ingest.feed.supervisor import FeedSupervisor
    from ashi_ingest.history.beginnings import Beginnings
    from ashi_ingest.venues.base import Venue
    from ashi_ingest.websocket.session import Session


class RunningFeeds:
    """What `ashi_ingest.market_follower` needs of them."""

    def __init__(
        self,
        settings: Settings,
        venue: Venue,
        *,
        feeds: FeedSupervisor,
        session: Session,
        reporter: FeedReporter,
        beginnings: Beginnings | None = None,
    ) -> None:
        """`beginnings`: those that begin in the past; what was never read before does so."""
        self._settings = settings
        self._venue = venue
        self._feeds = feeds
        self._session = session
        self._reporter = reporter
        self._beginnings = beginnings

    @property
    def subscribed(self) -> Sequence[str]:
        """The markets that connections deliver or will, without those that the venue has refused."""
        return [*self._session.markets, *([] if self._beginnings is None else self._beginnings.markets)]

    async def begin(self, markets: Sequence[str], unlisted_us: Mapping[str, int]) -> None:
        """Read these as well, from where they were left. Raises BrokerError when Kafka does not say where.

        One that was never read before is read from `unlisted_us` on, when the venue did not trade it yet.
        """
        symbols = {market: make_symbol(self._venue.name, market) for market in markets if not self._feeds.knows(market)}
        if symbols:
            reported = await read_feed(self._settings, symbols.values())
            # The log is not searched for what was never read.
            known = {symbol: feed for symbol, feed in reported.items() if feed.status is not None}
            since = uncompared_since(self._venue, known)
            late: dict[str, list[Trade]] = {}
            unread: set[str] = set()
            resume_points = await read_resume_points(
                self._settings, known, reported, since=since, late=late, unread=unread
            )
            for market, symbol in symbols.items():
                self._reporter.go_on_from(symbol, reported[symbol])
                point = resume_points.get(symbol, [])
                if self._beginnings is not None and self._beginnings.concerns(point, reported[symbol].gaps):
                    self._beginnings.add(market, point)
                else:
                    status = reported[symbol].status
                    since_us = unlisted_us.get(market)
                    self._feeds.add(market, point, status, since_us, late.get(symbol, ()), is_unread=symbol in unread)
        for market in markets:
            if market not in symbols:
                self._feeds.add(market, (), None)
        self._session.add([market for market in markets if self._feeds.knows(market)])

    def end(self, market: str, reason: str) -> None:
        """Read it no more: it is down for this reason."""
        if self._feeds.knows(market):
            self._feeds.remove(market, reason)
        elif self._beginnings is not None:
            self._beginnings.drop(market, reason)
        self._session.remove(market)

    def set_halted(self, market: str, halted: bool) -> None:
        """Whether the venue does not trade it now."""
        if self._feeds.knows(market):
            self._feeds.set_halted(market, halted)

    async def leave(self, market: str, reason: str) -> None:
        """One that this process does not read is down for this reason, if it was read before at all."""
        symbol = make_symbol(self._venue.name, market)
        reported = (await read_feed(self._settings, [symbol]))[symbol]
        if reported.status is not None:
            self._reporter.go_on_from(symbol, reported)
            self._reporter.set_state(symbol, "down", reason)
