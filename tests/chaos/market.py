"""The load: an endless, seeded stream of trades as bad feeds deliver them. The same seed gives the same records."""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

import msgspec

from ashi.contracts import Trade, encode_trade
from ashi.runtime.kafka.connections.clients import partition_of

PARTITIONS = 8
RATE = 800
"""Records a second."""
SYMBOLS = 24
SPEED = 20
"""Seconds of the trades' own time that pass in one second: two minutes hold some 200 windows of 10 s."""
"""Of few symbols. Many give so many candles that the three stores would take them for what lasts; see `Market`."""
START_US = 1_700_000_040_000_000

LATENESS_US = 2_000_000
JITTER_US = 1_900_000
LATE_US = (2_000_000, 45_000_000)
VERY_LATE_US = (60_000_000, 240_000_000)
RECENT_US = 66_000_000
"""Trades that may come once more: those of the last minute or so, within the horizon and beyond it."""


class Message(NamedTuple):
    """A record to publish. `partition` None: where its key belongs. Not `sound`: it must end in `trades.dead`."""

    key: bytes
    value: bytes
    partition: int | None
    sound: bool


class Market:
    """The symbols, and how fast their time passes.

    The chaos test shortens the changelogs' compaction lag, and counts on every row being written again long before
    that: of few symbols each trades many times a second by the wall clock, of many each once in a round of all.

    Attributes:
        speed: seconds of the trades' own time that pass in one second.
        symbols: all.

    """

    def __init__(self, amount: int = SYMBOLS) -> None:
        """Of so many symbols an eighth have ids that are not numbers, and a fifth are thin."""
        wordy, thin = amount // 8, (amount + 4) // 5
        self.speed = max(2, min(SPEED, 8_000 // amount))
        self._busy = [f"binance:B{number}USDT" for number in range(amount - wordy - thin)]
        self._wordy = {f"bitflyer:W{number}_JPY" for number in range(wordy)}
        self._thin = {f"binance-usdm:T{number}USDT": number for number in range(thin)}
        self.symbols = [*self._busy, *sorted(self._wordy), *self._thin]
        # Three seconds by the wall clock, of many symbols two, as a round of them takes long.
        self._slot_us = (3 if amount <= SYMBOLS else 2) * self.speed * 1_000_000
        self._in_rounds = amount > SYMBOLS
        self._round: list[str] = []

    def trade_id(self, symbol: str, number: int) -> str:
        """An id: the symbol's next number, or a word."""
        return f"JRF-{number:x}" if symbol in self._wordy else str(number)

    def choose(self, rng: random.Random, now: int) -> str:
        """The symbol that trades. Thin ones trade for a while and then are quiet for two, so flat candles are due."""
        if not self._in_rounds:
            symbol = rng.choice(self.symbols)
        else:
            if not self._round:
                self._round = rng.sample(self.symbols, len(self.symbols))
            symbol = self._round.pop()
        number = self._thin.get(symbol)
        if number is not None and (now // self._slot_us + number) % 3:
            return rng.choice(self._busy)
        return symbol


def messages(rng: random.Random, market: Market | None = None) -> Iterator[Message]:
    """Records without end: disorder, repetitions, late trades, quiet symbols, wrong clocks and garbage."""
    market = market or Market()
    recent: deque[Trade] = deque(maxlen=RATE * RECENT_US // market.speed // 1_000_000)
    next_id = {symbol: rng.randrange(10**9) for symbol in market.symbols}
    sequence = 0
    while True:
        sequence += 1
        now = START_US + sequence * market.speed * 1_000_000 // RATE
        luck = rng.random()
        if luck < 0.03 and recent:
            trade = _again(rng, recent)
        else:
            symbol = market.choose(rng, now)
            next_id[symbol] += 1
            trade = _trade(rng, symbol, market.trade_id(symbol, next_id[symbol]), sequence, now)
            if luck > 0.993:
                yield _unsound(rng, trade)
                continue
            recent.append(trade)
        yield Message(trade.symbol.encode(), encode_trade(trade), None, sound=True)


def _trade(rng: random.Random, symbol: str, trade_id: str, sequence: int, now: int) -> Trade:
    luck = rng.random()
    if luck < 0.92:
        behind = rng.randint(0, JITTER_US)
    else:
        behind = rng.randint(*LATE_US) if luck < 0.98 else rng.randint(*VERY_LATE_US)
    traded_at = now - behind
    if rng.random() < 0.3:  # so that some share their time, and windows begin and end with a trade
        traded_at -= traded_at % 500_000
    return Trade(
        symbol=symbol,
        trade_id=trade_id,
        price=Decimal(rng.randint(1, 10**7)) / 100,
        size=Decimal(rng.randint(1, 10**10)) / 10**8,
        side=rng.choice(["buy", "sell", None]),
        traded_at=traded_at,
        received_at=now,
        sequence=sequence,
    )


def _again(rng: random.Random, recent: deque[Trade]) -> Trade:
    """A trade that was published before; sometimes as another feed tells it, with a time that is rounded otherwise."""
    # Mostly of the last seconds; the cube takes few of the oldest.
    trade = recent[-1 - int(rng.random() ** 3 * len(recent))]
    if rng.random() < 0.2:
        return msgspec.structs.replace(trade, traded_at=trade.traded_at - trade.traded_at % 1_000_000)
    return trade


def _unsound(rng: random.Random, trade: Trade) -> Message:
    """A record that is no trade of its place."""
    key = trade.symbol.encode()
    home = partition_of(key, PARTITIONS)
    kind = rng.randrange(5)
    if kind == 0:  # a clock that is an hour ahead would close everything
        wrong = msgspec.structs.replace(trade, traded_at=trade.received_at + rng.randint(61, 3_600) * 1_000_000)
        return Message(key, encode_trade(wrong), None, sound=False)
    if kind == 1:
        return Message(b"binance:OTHER", encode_trade(trade), home, sound=False)
    if kind == 2:
        return Message(key, encode_trade(trade), (home + rng.randint(1, 7)) % PARTITIONS, sound=False)
    if kind == 3:
        return Message(key, json.dumps({"symbol": trade.symbol, "price": "NaN"}).encode(), None, sound=False)
    return Message(key, rng.choice([b"garbage", b"", b"\xff\xfe", b"[]", b"{"]), None, sound=False)
