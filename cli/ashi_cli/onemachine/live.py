"""What `ashi demo --live` and `ashi up` read, and whether the exchanges can be reached from here at all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from ashi.contracts.errors import ContractError, VenueError
from ashi.contracts.symbol import make_symbol
from ashi.runtime.spelling import did_you_mean
from ashi_ingest.known_venues import venue_named
from ashi_ingest.venues.registry import VENUES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from ashi.runtime.settings import Settings

MARKETS: Final[Mapping[str, Sequence[str]]] = {name: venue.busiest_markets for name, venue in VENUES.items()}
"""What is read unless markets are named: of each venue those that trade most."""
CONNECT_TIMEOUT_S: Final = 4.0
LIST_TIMEOUT_S: Final = 10.0


def check_markets(markets: Mapping[str, Sequence[str]], option: str = "--market: ") -> None:
    """Raise UsageError for a venue there is not, ContractError for a market whose name cannot be one."""
    for venue, names in markets.items():
        venue_named(venue, option)
        for name in names:
            make_symbol(venue, name)


async def reachable(
    settings: Settings, markets: Mapping[str, Sequence[str]], say: Callable[[str], None]
) -> dict[str, Sequence[str]]:
    """The venues of `markets` that answer; of each other one it is said why not.

    Raises VenueError when none does.
    """
    reasons = await unreachable(settings, markets)
    for venue, reason in reasons.items():
        say(f"{venue} cannot be reached from here and is left out: {reason}")
    return {venue: names for venue, names in markets.items() if venue not in reasons}


async def unreachable(settings: Settings, venues: Collection[str]) -> dict[str, str]:
    """Those of `venues` that do not answer, and why. Raises VenueError, which says so too, when none does."""
    found = await asyncio.gather(*(_why_not(settings, venue) for venue in venues))
    reasons = {venue: reason for venue, reason in zip(venues, found, strict=True) if reason is not None}
    if len(reasons) == len(venues):
        told = "; ".join(f"{venue}: {reason}" for venue, reason in reasons.items())
        raise VenueError(
            "no exchange can be reached from here; `ashi demo` (or `make demo`) shows the same with recordings, and "
            f"`ashi up --simulate` with markets that are simulated ({told})"
        )
    return reasons


async def unlisted(settings: Settings, markets: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence for each of `markets` that its venue does not list; none where a venue does not say what it lists."""
    found = await asyncio.gather(*(_unlisted_of(settings, venue, names) for venue, names in markets.items()))
    return [sentence for of_venue in found for sentence in of_venue]


async def _unlisted_of(settings: Settings, name: str, markets: Sequence[str]) -> list[str]:
    from ashi_ingest.markets import read_market_list
    from ashi_ingest.rest.client import RestClient, RestError

    venue = VENUES[name].live(has_key=False)
    try:
        async with (
            asyncio.timeout(LIST_TIMEOUT_S),
            RestClient(venue, settings.rest_url or venue.limits.rest_url, None) as rest,
        ):
            listed = await read_market_list(rest, venue)
    except (RestError, ContractError, TimeoutError):
        return []
    return [
        f"{name} has no market {market}{did_you_mean(market, listed)}" for market in markets if market not in listed
    ]


async def _why_not(settings: Settings, venue: str) -> str | None:
    address = urlsplit(settings.websocket_url or VENUES[venue].live(has_key=False).limits.websocket_url)
    host, port = address.hostname, address.port or (443 if address.scheme == "wss" else 80)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"{host}:{port} does not answer"
    except OSError as error:
        return f"{host}:{port}: {error.strerror or error}"
    writer.close()
    return None
