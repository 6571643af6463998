"""What a venue traded: every trade it ever made, by market, and what its REST interface may show of it."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Trade:
    """An execution. `at_us`: by the venue's clock, µs. `made`: by this machine's, s. `kind`: USD-M's `X`."""

    market: str
    id: int
    price: str
    size: str
    taker_buys: bool
    at_us: int
    made: float
    kind: str = "MARKET"


@dataclass
class Market:
    """`rate`: trades a second, 0 for none of its own. `halted`: listed, and not traded now."""

    name: str
    rate: float
    halted: bool = False
    listed: bool = True
    next_id: int = 1
    price: float = 60_000.0
    trades: list[Trade] = field(default_factory=list)


class Truth:
    """The markets of a venue, and the making of their trades with the ids that the venue documents."""

    def __init__(self, venue: str, rates: dict[str, float], seed: int) -> None:
        self.venue = venue
        self.random = random.Random(seed)
        self.clock_off_s = 0.0
        self.started = time.time()
        self.spot_sequence = 2_600_000_000
        self.markets = {name: self._market(name, rate) for name, rate in rates.items()}

    def _market(self, name: str, rate: float) -> Market:
        return Market(name, rate, next_id=self.random.randrange(1_000_000, 900_000_000))

    def list_market(self, name: str, rate: float) -> None:
        self.markets[name] = self._market(name, rate)

    def now(self) -> float:
        """By the venue's clock, s."""
        return time.time() + self.clock_off_s

    def make(self, name: str, count: int = 1) -> list[Trade]:
        """As many trades of one moment, recorded here; the caller pushes them."""
        market = self.markets[name]
        made = [self._one(market) for _ in range(count)]
        if self.venue == "gmo" and self.random.random() < 0.05:  # two that agree in every field
            made.append(made[-1])
        market.trades.extend(trade for trade in made if trade.kind == "MARKET")
        return made

    def _one(self, market: Market) -> Trade:
        market.price = max(1.0, market.price + self.random.gauss(0, 3))
        at_us = int(self.now() * 1_000_000)
        kind = "MARKET"
        if self.venue == "bitflyer":
            if self.random.random() < 0.05:  # exec_date is not monotonic in the order of ids
                at_us -= self.random.randrange(900_000)
            if market.name != "FX_BTC_JPY":
                self.spot_sequence += self.random.randrange(1, 4)
                market.next_id = self.spot_sequence
        else:
            at_us -= at_us % 1000
        if self.venue == "binance-usdm":
            if self.random.random() < 0.01:
                market.next_id += self.random.randrange(1, 4)  # ids that are no trades of the market
            if self.random.random() < 0.01:
                kind = "INSURANCE_FUND"
        trade = Trade(
            market.name,
            market.next_id,
            f"{market.price:.2f}",
            f"{self.random.randrange(1, 500_000) / 100_000:.5f}",
            self.random.random() < 0.5,
            at_us,
            time.time(),
            kind,
        )
        market.next_id += 1
        return trade

    def shown(self, name: str, lag_s: float) -> list[Trade]:
        """What REST lists of a market, oldest first, if it lags by so much."""
        until = time.time() - lag_s
        trades = self.markets[name].trades
        end = len(trades)
        while end and trades[end - 1].made > until:
            end -= 1
        return trades[:end]
