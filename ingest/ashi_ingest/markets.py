"""Which markets a worker reads: those that were named, or all that the venue lists; and of them, those of its shard."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from ashi.contracts.errors import ContractError
from ashi.contracts.symbol import make_symbol
from ashi.runtime.logs import get_logger
from ashi.runtime.retry import Backoff, retry
from ashi_ingest.rest.client import RestError
from ashi_ingest.shard import Shard, shard_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ashi_ingest.rest.client import RestClient
    from ashi_ingest.venues.base import ListedMarket, Venue

ATTEMPTS: Final = 3
"""So often the venue is asked for its markets before the worker goes on without having checked them."""
MAX_WAIT_S: Final = 10.0
"""And not again when the venue wants to be left alone for longer than this. Only without the list, for all of its
markets, the worker cannot go on."""

MarketList: TypeAlias = "Mapping[str, ListedMarket]"
"""What a venue lists, by the names of the markets; never empty."""

_log = get_logger(__name__)


class Choice(NamedTuple):
    """What a worker was told to read.

    Attributes:
        named: the markets by the venue's own names; empty for all of the venue.
        shard: the part of them that is this worker's; None for all.

    """

    named: Sequence[str]
    shard: Shard | None

    def read(self, venue: str, listed: MarketList) -> list[str]:
        """The markets that are to be read now: of all of a venue only those that trade, as most others never will."""
        if self.named:
            wanted = [market for market in self.followed(venue) if market in listed]
            return [market for market in wanted if listed[market].state != "delisted"]
        return [
            market
            for market, what in sorted(listed.items())
            if what.state == "trading" and self._is_in_shard(venue, market)
        ]

    def followed(self, venue: str) -> list[str]:
        """Those that were named, once each; [] for all of the venue."""
        return [market for market in dict.fromkeys(self.named) if self._is_in_shard(venue, market)]

    def concerns(self, venue: str, market: str) -> bool:
        """Whether the market is one of those that the worker may come to read."""
        return (not self.named or market in self.named) and self._is_in_shard(venue, market)

    def _is_in_shard(self, venue: str, market: str) -> bool:
        return self.shard is None or shard_of(make_symbol(venue, market), self.shard.count) == self.shard.number


class Markets(NamedTuple):
    """The markets of one worker at its start, by the venue's own names.

    Attributes:
        present: what it is to read.
        absent: what was named, and the venue does not have.
        listed: what the venue lists; None when it has not said so.
        asked_us: when it was asked, µs; 0 where that is not known.

    """

    present: list[str]
    absent: list[str]
    listed: MarketList | None
    asked_us: int = 0


async def choose_markets(rest: RestClient, venue: Venue, choice: Choice) -> Markets:
    """The markets of a worker: those named, or all of the venue if there are none, and of them those of its shard.

    Raises:
        RestError: no market is named, and the venue will never list its own.

    """
    asked_us = time.time_ns() // 1_000
    listed = await (_ask_a_few_times(rest, venue) if choice.named else _ask_for_all(rest, venue))
    if listed is None:
        return Markets(choice.followed(venue.name), [], None)
    present = choice.read(venue.name, listed)
    absent = [market for market in choice.followed(venue.name) if market not in present]
    return Markets(present, absent, listed, asked_us)


async def read_market_list(rest: RestClient, venue: Venue) -> MarketList:
    """What the venue lists. Names that cannot be part of a symbol are left out, with a line in the log for each.

    Raises:
        RestError: there is no answer.
        ContractError: it cannot be read, or lists nothing.

    """
    listed: dict[str, ListedMarket] = {}
    for market in venue.read_markets((await rest.get(venue.markets_request())).body):
        try:
            make_symbol(venue.name, market.market)
        except ContractError as error:
            if market.market not in _unusable:
                _unusable.add(market.market)
                _log.warning("the venue lists a market whose name cannot be read, it is left out", reason=str(error))
        else:
            listed[market.market] = market
    if not listed:
        raise ContractError(f"{venue.name} lists no market")
    return listed


_unusable: set[str] = set()
"""The names that have been told of."""


async def _ask_for_all(rest: RestClient, venue: Venue) -> MarketList:
    """What the venue lists, asked for until it lists something. Raises RestError when it never will."""
    return await retry(
        lambda: read_market_list(rest, venue), least_wait_s=_least_wait_s, backoff=Backoff(), on_wait=_log_wait
    )


async def _ask_a_few_times(rest: RestClient, venue: Venue) -> MarketList | None:
    """What the venue lists; None when it does not say so soon enough."""

    def least_wait_s(error: Exception) -> float | None:
        wait_s = _least_wait_s(error)
        return None if wait_s is None or wait_s > MAX_WAIT_S else wait_s

    try:
        return await retry(
            lambda: read_market_list(rest, venue),
            least_wait_s=least_wait_s,
            max_attempts=ATTEMPTS,
            backoff=Backoff(),
            on_wait=_log_wait,
        )
    except (RestError, ContractError) as error:
        _log.warning("the venue does not list its markets, going on unchecked", reason=str(error))
        return None


def _least_wait_s(error: Exception) -> float | None:
    if isinstance(error, RestError):
        return error.retry_after_s
    return 0.0 if isinstance(error, ContractError) else None  # in maintenance venues answer with something else


def _log_wait(error: Exception, wait_s: float) -> None:
    _log.warning("the venue does not list its markets, asking again", reason=str(error), wait_s=round(wait_s, 3))
