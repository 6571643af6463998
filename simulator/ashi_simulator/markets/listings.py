"""The markets of a venue, as it lists them at the moment: they come, go, and stop trading for a while."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

QUOTES: Final = ("USDT", "USDC", "BTC", "JPY")
_NEW_MARKETS: Final = {"bitflyer": "NEW{}_JPY", "gmo": "NEW{}"}


@dataclass(slots=True)
class Listing:
    """What a venue says of a market.

    Attributes:
        market: its name.
        base: what is traded.
        quote: what it is paid in.
        tick: the step of its prices, in plain notation.
        lot: the step of its sizes.
        trading: False in a halt.

    """

    market: str
    base: str
    quote: str
    tick: str
    lot: str = "0.00000001"
    trading: bool = True


class Listings:
    """Iterates over the names of the listed markets, those in a halt among them."""

    def __init__(self, venue: str, markets: Iterable[str]) -> None:
        self._venue = venue
        self._listed = {market: _listing(venue, market) for market in markets}
        self._by_lower = {market.lower(): market for market in self._listed}
        self._introduced = 0

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._listed))

    def __contains__(self, market: object) -> bool:
        return market in self._listed

    def __len__(self) -> int:
        return len(self._listed)

    def __getitem__(self, market: str) -> Listing:
        return self._listed[market]

    def trading(self) -> list[str]:
        """The names of those that trade."""
        return [market for market, listing in self._listed.items() if listing.trading]

    def spelled_like(self, lower: str) -> str | None:
        """The market whose name is this in lower case, as Binance names streams; None when there is none."""
        return self._by_lower.get(lower)

    def add(self, market: str) -> str:
        """List a market, a made-up one when the name is empty. Gives its name."""
        if not market:
            self._introduced += 1
            market = _NEW_MARKETS.get(self._venue, "NEW{}USDT").format(self._introduced)
        self._listed.setdefault(market, _listing(self._venue, market))
        self._by_lower[market.lower()] = market
        return market

    def remove(self, market: str) -> None:
        """List it no more. Nothing happens if it is not listed."""
        self._listed.pop(market, None)
        self._by_lower.pop(market.lower(), None)

    def set_trading(self, market: str, trading: bool) -> None:
        """Begin or end a halt. Nothing happens if it is not listed any more."""
        if market in self._listed:
            self._listed[market].trading = trading


def _listing(venue: str, market: str) -> Listing:
    tick = "1" if market.endswith("JPY") or venue == "gmo" else "0.01"
    if venue.startswith("binance"):
        quote = next((quote for quote in QUOTES if market.endswith(quote)), "USDT")
        return Listing(market, market.removesuffix(quote), quote, tick)
    name = market.removeprefix("FX_")
    return Listing(market, name.partition("_")[0], name.partition("_")[2] or "JPY", tick)
