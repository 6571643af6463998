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
from ashi.runtime.kafka.clients import partition_of

PARTITIONS = 8
RATE = 1_200
"""Records a second."""
SPEED = 20
"""Seconds of the trades' own time that pass in one second: two minutes hold some 200 windows of 10 s."""
START_US = 1_700_000_040_000_000

BUSY = [f"binance:B{number}USDT" for number in range(16)]
WORDY = [f"bitflyer:W{number}_JPY" for number in range(3)]
"""Symbols whose trade ids are not numbers."""
THIN = [f"binance-usdm:T{number}USDT" for number in range(5)]
"""Symbols that trade one minute and then are quiet for two, so that flat candles are due: 6 s by the wall clock. The
chaos test shortens the changelogs' compaction lag, and counts on every row being written again long before that."""

LATENESS_US = 2_000_000
JITTER_US = 1_900_000
LATE_US = (2_000_000, 45_000_000)
VERY_LATE_US = (60_000_000, 240_000_000)
RECENT = 4_000
"""Trades that may come once more: those of the last minute or so, within the horizon and beyond it."""


class Message(NamedTuple):
    """A record to publish. `partition` None: where its key belongs. Not `sound`: it must end in `trades.dead`."""

    key: bytes
    value: bytes
    partition: int | None
    sound: bool


def messages(rng: random.Random) -> Iterator[Message]:
    """Records without end: disorder, repetitions, late trades, quiet symbols, wrong clocks and garbage."""
    recent: deque[Trade] = deque(maxlen=RECENT)
    next_id = {symbol: rng.randrange(10**9) for symbol in [*BUSY, *WORDY, *THIN]}
    sequence = 0
    while True:
        sequence += 1
        now = START_US + sequence * SPEED * 1_000_000 // RATE
        luck = rng.random()
        if luck < 0.03 and recent:
            trade = _again(rng, recent)
        else:
            symbol = _symbol(rng, now)
            next_id[symbol] += 1
            trade = _trade(rng, symbol, next_id[symbol], sequence, now)
            if luck > 0.993:
                yield _unsound(rng, trade)
                continue
            recent.append(trade)
        yield Message(trade.symbol.encode(), encode_trade(trade), None, sound=True)


def _symbol(rng: random.Random, now: int) -> str:
    symbol = rng.choice(BUSY + WORDY + THIN)
    if symbol in THIN and (now // 60_000_000 + THIN.index(symbol)) % 3:
        return rng.choice(BUSY)
    return symbol


def _trade(rng: random.Random, symbol: str, number: int, sequence: int, now: int) -> Trade:
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
        trade_id=f"JRF-{number:x}" if symbol in WORDY else str(number),
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
