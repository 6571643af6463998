"""A made-up market: a seeded random walk with everything that real feeds do to their readers.

Several trades in one millisecond, some of them equal in every field; sizes down to 0.00000001; prices of trades without
a taker (auctions); times against the order of ids; ids with and without holes.
"""

from __future__ import annotations

from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Final

from ashi.contracts.decimals import format_decimal
from ashi_simulator.executions import PER_MS, PER_S, Execution, ExecutionBatch
from ashi_simulator.notation import venue_price, venue_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LARGEST_SWEEP: Final = 17
"""Executions in one bitFlyer message: the most that was ever seen."""
SWEEPS: Final = (1,) * 28 + (2,) * 6 + (3, 3, 4, 4, 6, LARGEST_SWEEP)
"""How many executions one order makes; drawn evenly from these."""

EQUAL: Final = 0.2
"""Of the executions of a sweep, so many repeat the one before in price and size."""
AUCTION: Final = 0.004
INVERTED: Final = 0.03
LARGEST_INVERSION: Final = 30 * PER_MS
OFF_BOOK: Final = 0.01
JUMP: Final = 0.0005
EVENNESS: Final = 4
BURST_EVERY_S: Final = 3.0
BURST_S: Final = 0.2
BURST_FACTOR: Final = 5


class SyntheticMarket:
    """Executions of all markets of a venue, so many a second over all of them together.

    The same seed and the same calls give the same executions. With `bursts` the rate is five times as high for a fifth
    of a second every now and then; without, it is constant. `uneven`: each market has so much less than the one before
    it that the last of many is quiet for minutes; else they trade alike.
    """

    def __init__(
        self, venue: str, markets: Sequence[str], *, seed: int, rate: float, bursts: bool, uneven: bool = False
    ) -> None:
        self._venue = venue
        self._random = Random(f"{venue} {seed}")  # noqa: S311  (a market, not a secret)
        self._rate = rate
        self._bursts = bursts
        self._uneven = uneven
        self._burst_until = 0
        self._credit = 0.0
        self._last = 0
        self._walks = {market: _Walk(venue, market, self._random) for market in markets}
        self._open = list(self._walks.values())
        self._shared_number = 2_284_000_000 + self._random.randrange(1_000_000)

    def start(self, now: int) -> None:
        """Trade from `now` on (100 ns since the epoch)."""
        self._last = max(now, self._last)

    def open(self, markets: Sequence[str]) -> None:
        """From now on these trade, and no other; one that never did begins."""
        for market in markets:
            if market not in self._walks:
                self._walks[market] = _Walk(self._venue, market, self._random)
        self._open = [self._walks[market] for market in markets]

    def due(self, now: int) -> Iterator[ExecutionBatch]:
        """What happened since the last call, up to `now`."""
        span = now - self._last
        if span <= 0:
            return
        if not self._open:
            self._last = now
            return
        self._credit += self._rate * self._factor(now, span) * span / PER_S
        amount = int(self._credit)
        self._credit -= amount
        made = 0
        while made < amount:
            sweep = min(SWEEPS[int(self._random.random() * len(SWEEPS))], amount - made)
            yield self._sweep(sweep, self._last + span * (made + 1) // amount)
            made += sweep
        self._last = now

    def _factor(self, now: int, span: int) -> int:
        if not self._bursts:
            return 1
        if now >= self._burst_until and self._random.random() < span / PER_S / BURST_EVERY_S:
            self._burst_until = now + int(BURST_S * PER_S)
        return BURST_FACTOR if now < self._burst_until else 1

    def _sweep(self, amount: int, at: int) -> ExecutionBatch:
        """What one order of a taker makes of a market: `amount` executions."""
        random = self._random.random
        walk = self._open[int(random() ** (EVENNESS if self._uneven else 1) * len(self._open))]
        bitflyer = self._venue == "bitflyer"
        taker = "BUY" if random() < 0.5 else "SELL"
        if bitflyer:
            if random() < AUCTION:
                taker = ""
            if random() < INVERTED:
                at -= int(random() * LARGEST_INVERSION)
        executions: list[Execution] = []
        for index in range(amount):
            if not (index and random() < EQUAL):
                price = walk.price()
                size = walk.size()
            if bitflyer:
                number = walk.own_number() if walk.has_own_numbers else self._next_shared()
                executions.append(Execution(number, price, size, taker, _with_six_digits(at + index * 7)))
            elif self._venue == "binance-usdm" and random() < OFF_BOOK:
                executions.append(walk.off_book(price, size, taker, at))
            else:
                executions.append(Execution(walk.own_number(), price, size, taker, at))
        return ExecutionBatch(walk.market, executions)

    def _next_shared(self) -> int:
        """The spot products of bitFlyer share one sequence with each other and with products that are not simulated."""
        self._shared_number += 1 + int(self._random.random() ** 4 * 8)
        return self._shared_number


def _with_six_digits(at: int) -> int:
    """Of 100 ns at most one zero is trimmed, so that the websocket's times have the 6 or 7 digits they always have."""
    return at if at % 100 else at + 1


class _Walk:
    """Price, sizes and ids of one market."""

    def __init__(self, venue: str, market: str, random: Random) -> None:
        self.market = market
        self._random = random
        self._venue = venue
        self.has_own_numbers = venue != "bitflyer" or market.startswith("FX_")
        self._jumps = venue == "bitflyer"
        self._number = random.randrange(1_000_000, 4_000_000_000)
        self._tick = Decimal(1) if market.endswith("JPY") or venue == "gmo" else Decimal("0.01")
        self._level = random.randrange(100_000, 9_000_000)
        self._prices: dict[int, str] = {}
        self._sizes = [venue_size(venue, size) for size in _sizes(random)]

    def own_number(self) -> int:
        """The next id, contiguous. On bitFlyer's FX_BTC_JPY it jumps by thousands once in a long while."""
        self._number += 1
        if self._jumps and self._random.random() < JUMP:
            self._number += self._random.randrange(1000, 10_000)
        return self._number

    def price(self) -> str:
        """The next price of the walk, as the venue writes it."""
        self._level = max(self._level + int(self._random.random() * 7) - 3, 1000)
        text = self._prices.get(self._level)
        if text is None:
            text = self._prices[self._level] = venue_price(self._venue, format_decimal(self._level * self._tick))
        return text

    def size(self) -> str:
        """A size, as the venue writes it."""
        return self._sizes[int(self._random.random() * len(self._sizes))]

    def off_book(self, price: str, size: str, taker: str, at: int) -> Execution:
        """A trade of USD-M that is none of the market: its id is missing from what REST gives."""
        if self._random.random() < 0.5:
            return Execution(self.own_number(), "0", "0", taker, at, "NA")
        return Execution(self.own_number(), price, size, taker, at, "INSURANCE_FUND")


def _sizes(random: Random) -> list[str]:
    """A few hundred sizes in plain notation, from the smallest there is to large ones, small ones more often."""
    drawn = [Decimal(random.randrange(1, 10 ** random.randrange(1, 12))).scaleb(-8) for _ in range(254)]
    return [format_decimal(size) for size in [*drawn, Decimal("0.00000001"), Decimal("0.01")]]
