"""Following the venue's list of markets while the worker runs: halts, listings and delistings.

A market that is named stays subscribed in a halt, so that no trade is missed when the halt ends. Of all of a venue only
what trades is read: most of what Binance lists is in a halt for ever.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

from ashi.contracts.errors import BrokerUnreachableError, ContractError
from ashi.runtime.logs import get_logger
from ashi.runtime.wall_clock import now_us
from ashi_ingest.markets import read_market_list
from ashi_ingest.rest.client import RestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ashi.contracts.instrument import Instrument
    from ashi_ingest.markets import Choice, MarketList, Markets
    from ashi_ingest.rest.client import RestClient
    from ashi_ingest.venues.base import ListedMarket, Venue

ABSENCES: Final = 2
"""In so many lists, one after the other, a market has to be missing before it counts as delisted: a list may be one of
a bad moment."""
SPREAD: Final = 0.1
"""By how much the time between two lists varies, as a share of it: workers that began together do not ask together."""

_log = get_logger(__name__)


class MarketFeeds(Protocol):
    """The feeds of a worker, and its session, as far as their markets come and go."""

    @property
    def subscribed(self) -> Sequence[str]:
        """The markets that connections deliver or will, without those that the venue has refused."""

    async def begin(self, markets: Sequence[str], unlisted_us: Mapping[str, int]) -> None:
        """Read these as well, from where they were left; those that were refused are subscribed to again.

        `unlisted_us`: when the venue was asked last, µs, and did not trade it yet, where that is known.
        """

    def end(self, market: str, reason: str) -> None:
        """Read it no more: it is down for this reason."""

    def set_halted(self, market: str, halted: bool) -> None:
        """Whether the venue does not trade it now."""

    async def leave(self, market: str, reason: str) -> None:
        """One that this process does not read, and that may have been read before, is down for this reason."""


class Instruments(Protocol):
    """Where what the venue lists is published, see `ashi_ingest.instruments`."""

    @property
    def known(self) -> Mapping[str, Instrument]:
        """What was published last, by market."""

    async def report(self, listed: Iterable[ListedMarket], gone: Iterable[str]) -> None:
        """Publish what has changed."""


class MarketFollower:
    """Reads the venue's list again and again, and tells feeds and topic `instruments` what has changed."""

    def __init__(
        self,
        venue: Venue,
        rest: RestClient,
        choice: Choice,
        start: Markets,
        *,
        feeds: MarketFeeds,
        instruments: Instruments,
    ) -> None:
        """`start`: what the worker has begun with."""
        self._venue = venue
        self._rest = rest
        self._choice = choice
        self._first = start.listed
        self._reading = dict.fromkeys(start.present)  # a set in their order
        self._feeds = feeds
        self._instruments = instruments
        self._absences: Counter[str] = Counter()
        self._last: tuple[int, MarketList] | None = None
        if start.listed is not None and start.asked_us:
            self._last = start.asked_us, start.listed

    @property
    def reading(self) -> list[str]:
        """The markets that the venue has, as far as is known, and that the worker is to read."""
        return list(self._reading)

    async def run(self, interval_s: float) -> None:
        """Follow for ever. An answer that does not come or cannot be read is left out, with a line in the log."""
        if self._first is not None:
            await self._tell(self._first, self._gone(self._first))
        while True:
            await asyncio.sleep(interval_s * random.uniform(1 - SPREAD, 1 + SPREAD))  # noqa: S311
            asked_us = now_us()
            try:
                listed = await read_market_list(self._rest, self._venue)
            except (RestError, ContractError) as error:
                _log.warning("the venue does not list its markets, asking again later", reason=str(error))
                continue
            await self._try_to_follow(listed, asked_us)

    async def _try_to_follow(self, listed: MarketList, asked_us: int) -> None:
        try:
            await self.follow(listed)
            self._last = asked_us, listed
        except BrokerUnreachableError as error:  # where a market was left stands there
            _log.warning("a change of the venue's markets has to wait for Kafka", reason=str(error))

    async def follow(self, listed: MarketList) -> None:
        """Do what a list asks for."""
        gone = self._gone(listed)
        for market in gone:
            reason = f"delisted: {self._venue.name} does not list it any more"
            if market in self._reading:
                del self._reading[market]
                _log.warning("a market is delisted", venue=self._venue.name, market=market)
                self._feeds.end(market, reason)
            else:
                await self._feeds.leave(market, reason)
        wanted = self._choice.read(self._venue.name, listed)
        subscribed = set(self._feeds.subscribed)
        begun = [market for market in wanted if market not in subscribed]
        if begun:
            _log.info("markets are read from now on", venue=self._venue.name, markets=begun)
            asked_us, before = self._last or (0, listed)
            # Binance lists a market some time before it trades.
            new = [market for market in begun if market not in before or before[market].state != "trading"]
            await self._feeds.begin(begun, dict.fromkeys(new, asked_us))
            self._reading.update(dict.fromkeys(begun))
        await self._tell(listed, gone)

    async def _tell(self, listed: MarketList, gone: Sequence[str]) -> None:
        for market in self._reading:
            if market in listed:
                self._feeds.set_halted(market, listed[market].state == "halted")
        concerned = [what for what in listed.values() if self._choice.concerns(self._venue.name, what.market)]
        await self._instruments.report(concerned, gone)

    def _gone(self, listed: MarketList) -> list[str]:
        """The markets that were read or published, and of which the venue now says for sure that they are no more."""
        known = [
            market
            for market, instrument in self._instruments.known.items()
            if instrument.state != "delisted" and self._choice.concerns(self._venue.name, market)
        ]
        gone = []
        for market in dict.fromkeys([*self._reading, *known]):
            if market not in listed:
                self._absences[market] += 1
                if self._absences[market] >= ABSENCES:
                    gone.append(market)
            else:
                del self._absences[market]
                if listed[market].state == "delisted":
                    gone.append(market)
        return gone
