"""Symbols: `venue:MARKET`, the market by the venue's own name, such as `bitflyer:BTC_JPY`. They are the Kafka keys.

A venue may name its markets in any script (`binance:币安人生USDT`). A name is the venue's own characters in UTF-8: it
is neither normalised nor folded, so two names are the same market only if their bytes are.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

from ashi.contracts.errors import ContractError

_VENUE = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_MARKET = re.compile(r"[A-Za-z0-9\u0080-\U0010ffff][A-Za-z0-9._@:/+\u0080-\U0010ffff-]*")
MAX_MARKET_BYTES: Final = 64
"""The longest name of a market, in UTF-8."""
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"})
"""Unicode categories of what cannot be seen, so that two names would look the same: control and format characters,
surrogates (which no UTF-8 has), spaces."""


def make_symbol(venue: str, market: str) -> str:
    """Join a venue and its market name. Raises ContractError naming the part that is wrong."""
    if _VENUE.fullmatch(venue) is None:
        raise ContractError(f"symbol: venue {venue!r} must be lower-case letters, digits and hyphens")
    if _MARKET.fullmatch(market) is None:
        raise ContractError(
            f"symbol: market {market[:80]!r} must be letters, digits or ._@:/+-, a letter or digit first"
        )
    if not market.isascii() and (unseen := [char for char in market if unicodedata.category(char) in _UNSEEN]):
        raise ContractError(f"symbol: market {market[:80]!r} has a character that cannot be seen: {unseen[0]!r}")
    if len(market.encode()) > MAX_MARKET_BYTES:
        raise ContractError(f"symbol: market {market[:80]!r} is longer than {MAX_MARKET_BYTES} bytes in UTF-8")
    return f"{venue}:{market}"


@lru_cache(maxsize=10_000)  # the same few in every message
def split_symbol(symbol: str) -> tuple[str, str]:
    """Venue and market of a symbol. Raises ContractError when it is not `venue:MARKET`."""
    venue, colon, market = symbol.partition(":")
    if not colon:
        raise ContractError(f"symbol {symbol!r} has no venue: write venue:MARKET, such as bitflyer:BTC_JPY")
    make_symbol(venue, market)
    return venue, market
