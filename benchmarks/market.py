"""The trades of `side_by_side.py`, the same for the same seed, and what candles they make, counted by themselves.

The count shares no code with Ashi: whole numbers, a minute at a time, the longer windows of minutes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from ashi.contracts import Trade, encode_trade
from ashi.runtime.kafka.connections.clients import partition_of

START_US = 1_700_000_000_000_000 // 3_600_000_000 * 3_600_000_000
"""The beginning of an hour, so that the first candles are whole."""
DISORDER_US = 500_000
MINUTE_US = 60_000_000
LENGTHS_US = {"1m": MINUTE_US, "5m": 5 * MINUTE_US, "1h": 60 * MINUTE_US}
PRICE_DIGITS, SIZE_DIGITS = 3, 8

Key = tuple[str, str, int]
"""Symbol, timeframe, open time (µs)."""


class Expected(NamedTuple):
    """What a candle must say."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trade_count: int


class _Window:
    """A window that is being counted: prices in thousandths, the volume in hundred-millionths."""

    __slots__ = ("close", "count", "first", "high", "last", "low", "open", "volume")

    def __init__(self, rank: tuple[int, int], price: int) -> None:
        self.first = self.last = rank
        self.open = self.high = self.low = self.close = price
        self.volume = self.count = 0

    def add(self, rank: tuple[int, int], price: int, size: int) -> None:
        if rank < self.first:
            self.first, self.open = rank, price
        if rank > self.last:
            self.last, self.close = rank, price
        self.high = max(self.high, price)
        self.low = min(self.low, price)
        self.volume += size
        self.count += 1

    def add_window(self, other: _Window) -> None:
        if other.first < self.first:
            self.first, self.open = other.first, other.open
        if other.last > self.last:
            self.last, self.close = other.last, other.close
        self.high, self.low = max(self.high, other.high), min(self.low, other.low)
        self.volume += other.volume
        self.count += other.count

    def expected(self) -> Expected:
        first, high, low, last = (
            Decimal(price).scaleb(-PRICE_DIGITS) for price in (self.open, self.high, self.low, self.close)
        )
        return Expected(first, high, low, last, Decimal(self.volume).scaleb(-SIZE_DIGITS), self.count)


class Market:
    """So many trades of symbols that trade alike, spread over the partitions evenly, in light disorder.

    Behind them each symbol trades once more, long after: so every window of the others closes, in any engine.
    """

    def __init__(self, count: int, symbols: int, partitions: int, *, between_us: int = 5_000, seed: int = 1) -> None:
        """`between_us`: how far apart trades are in the time of the data, µs."""
        self.count = count
        self.partitions = partitions
        self.homes = spread_names(symbols, partitions)
        self._between_us = between_us
        self._seed = seed
        self.last_us = START_US + DISORDER_US + count * between_us + 2 * LENGTHS_US["1h"]
        """When each symbol trades for the last time."""
        self._minutes: dict[tuple[str, int], _Window] = {}

    def messages(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Partition, key and value of each trade, in order; they are counted as they are taken."""
        rng = random.Random(self._seed)
        names = list(self.homes)
        ids = dict.fromkeys(names, 3_000_000_000)
        self._minutes.clear()
        for number in range(self.count):
            symbol = names[int(rng.random() * len(names))]
            ids[symbol] += 1
            traded_at = START_US + DISORDER_US + number * self._between_us - int(rng.random() * DISORDER_US)
            price, size = 2_600_000 + int(rng.random() * 100_000), 1 + int(rng.random() * 10**9)
            side = "buy" if rng.random() < 0.5 else "sell"
            yield self._message(symbol, ids[symbol], price, size, traded_at=traded_at, side=side)
            place = (symbol, traded_at // MINUTE_US)
            rank = (traded_at, ids[symbol])
            window = self._minutes.get(place)
            if window is None:
                window = self._minutes[place] = _Window(rank, price)
            window.add(rank, price, size)
        for symbol in names:
            yield self._message(symbol, ids[symbol] + 1, 1, 1, traded_at=self.last_us, side="buy")

    def expected(self) -> dict[Key, Expected]:
        """The candles of all trades but the last of each symbol, once `messages` has come to its end."""
        windows: dict[Key, _Window] = {}
        for (symbol, minute), counted in self._minutes.items():
            for timeframe, length_us in LENGTHS_US.items():
                key = (symbol, timeframe, minute * MINUTE_US // length_us * length_us)
                if key not in windows:
                    windows[key] = _Window(counted.first, counted.open)
                    windows[key].last, windows[key].close = counted.last, counted.close
                windows[key].add_window(counted)
        return {key: window.expected() for key, window in windows.items()}

    def _message(
        self, symbol: str, number: int, price: int, size: int, *, traded_at: int, side: str
    ) -> tuple[int, bytes, bytes]:
        trade = Trade(
            symbol=symbol,
            trade_id=str(number),
            price=Decimal(price).scaleb(-PRICE_DIGITS),
            size=Decimal(size).scaleb(-SIZE_DIGITS),
            side="buy" if side == "buy" else "sell",
            traded_at=traded_at,
            received_at=traded_at + 50_000,
            sequence=number,
        )
        return self.homes[symbol], symbol.encode(), encode_trade(trade)


def spread_names(symbols: int, partitions: int) -> dict[str, int]:
    """Names of symbols and their partitions, of which each has as many, give or take one."""
    wanted = [symbols // partitions + (number < symbols % partitions) for number in range(partitions)]
    homes: dict[str, int] = {}
    number = 0
    while len(homes) < symbols:
        name = f"binance:S{number}USDT"
        home = partition_of(name.encode(), partitions)
        if wanted[home]:
            wanted[home] -= 1
            homes[name] = home
        number += 1
    return homes
