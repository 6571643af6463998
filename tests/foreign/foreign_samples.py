"""What the tests of other teams' clients send: trades with disorder, gaps, statuses."""

from __future__ import annotations

import random
from decimal import Decimal

from foreign_client import Sent

from ashi.contracts import Candle, Trade, encode_candle, encode_trade
from ashi.contracts.feed import FeedGap, FeedStatus, encode_feed
from ashi.contracts.instrument import Instrument, encode_instrument
from ashi.contracts.topics import CANDLES, FEED_GAPS, FEED_STATUS, INSTRUMENTS, TRADES
from samples.hypothesis_strategies import START, drawn_lateness_us, drawn_trade

NAMES = ["1m", "5m", "1h"]
SYMBOLS = [f"binance:S{number}USDT" for number in range(12)]
OTHER = "another:MARKET"
PAUSING = "binance:PAUSINGUSDT"
MINUTE_US = 60_000_000


def make_trades(count: int, seed: int, step_us: int = 300_000) -> list[Trade]:
    """Disorder, and trades that are late within the horizon and beyond it."""
    rng = random.Random(seed)
    log = []
    for number in range(count):
        behind = drawn_lateness_us(rng)
        traded_at = max(START + number * step_us + rng.randint(0, 1_900_000) - behind, START)
        log.append(drawn_trade(rng, SYMBOLS, f"{seed}{number:06}", traded_at, number))
    return log


def pausing_trades() -> list[Trade]:
    """A market that trades once in four minutes: flat candles between."""
    return [
        Trade(PAUSING, f"p{number}", Decimal(100 + number), Decimal("0.5"), "buy", at, at, number)
        for number in range(5)
        for at in (START + 1 + number * 4 * MINUTE_US,)
    ]


def records_of(trades: list[Trade]) -> list[Sent]:
    return [(TRADES, trade.symbol.encode(), encode_trade(trade)) for trade in trades]


def gaps(count: int) -> list[Sent]:
    """Each is another gap of one of three symbols."""
    made = [
        FeedGap(SYMBOLS[number % 3], START + number * MINUTE_US, None, "open", 0, "silent for 30 s", START + number)
        for number in range(count)
    ]
    return [(FEED_GAPS, gap.symbol.encode(), encode_feed(gap)) for gap in made]


def candles(count: int) -> list[Sent]:
    """Minutes of one symbol of which nobody else makes any."""
    made = []
    for number in range(count):
        start, price, nothing = MINUTE_US * (START // MINUTE_US + number), Decimal(number + 1), Decimal(0)
        prices = (price, price, price, price)
        made.append(
            Candle(OTHER, "1m", start, start + MINUTE_US, *prices, price, price, 1, nothing, nothing, "1", "1", number)
        )
    return [(CANDLES, candle.symbol.encode(), encode_candle(candle)) for candle in made]


def instruments(count: int) -> list[Sent]:
    made = [
        Instrument(f"binance:S{number}USDT", None, None, None, None, "trading", START + number)
        for number in range(count)
    ]
    return [(INSTRUMENTS, instrument.symbol.encode(), encode_instrument(instrument)) for instrument in made]


def statuses(count: int) -> list[Sent]:
    """One after another of each of three symbols."""
    made = [
        FeedStatus(SYMBOLS[number % 3], "connected", START, None, None, None, START + number) for number in range(count)
    ]
    return [(FEED_STATUS, status.symbol.encode(), encode_feed(status)) for status in made]
