"""Symbols: `venue:MARKET`, the market by the venue's own name, such as `bitflyer:BTC_JPY`. They are the Kafka keys."""

from __future__ import annotations

import re
from functools import lru_cache

from ashi.contracts.errors import ContractError

_VENUE = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_MARKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:/+-]{0,63}", re.ASCII)


def make_symbol(venue: str, market: str) -> str:
    """Join a venue and its market name. Raises ContractError naming the part that is wrong."""
    if _VENUE.fullmatch(venue) is None:
        raise ContractError(f"symbol: venue {venue!r} must be lower-case letters, digits and hyphens")
    if _MARKET.fullmatch(market) is None:
        raise ContractError(f"symbol: market {market!r} must be 1 to 64 letters, digits or ._@:/+-")
    return f"{venue}:{market}"


@lru_cache(maxsize=10_000)  # the same few in every message
def split_symbol(symbol: str) -> tuple[str, str]:
    """Venue and market of a symbol. Raises ContractError when it is not `venue:MARKET`."""
    venue, colon, market = symbol.partition(":")
    if not colon:
        raise ContractError(f"symbol {symbol!r} has no venue: write venue:MARKET, such as bitflyer:BTC_JPY")
    make_symbol(venue, market)
    return venue, market
