"""The messages of the public contract, each with all that a document about it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import msgspec

from ashi.contracts.candle import CANDLE_SCHEMA, Candle, encode_candle
from ashi.contracts.feed import (
    FEED_GAP_SCHEMA,
    FEED_STATUS_SCHEMA,
    FeedGap,
    FeedStatus,
    FeedWorker,
    encode_feed,
)
from ashi.contracts.instrument import INSTRUMENT_SCHEMA, Instrument, encode_instrument
from ashi.contracts.schemas.fields import (
    CANDLE_FIELDS,
    GAP_FIELDS,
    INSTRUMENT_FIELDS,
    SIGNAL_FIELDS,
    STATUS_FIELDS,
    TRADE_FIELDS,
    WORKER_FIELDS,
    Fields,
    Keywords,
)
from ashi.contracts.signal import SIGNAL_SCHEMA, Signal, encode_signal
from ashi.contracts.trade import TRADE_SCHEMA, Trade, encode_trade


@dataclass(frozen=True, slots=True)
class MessageSpec:
    """A message as other programs see it.

    Attributes:
        schema: its name and version, as in the header `schema`: `ashi.trade.v1`.
        title: what it is called: `Trade`.
        summary: what it is, in a sentence or two.
        struct: its fields and their types.
        encode: writes it.
        fields: the meaning of each field.
        condition: keywords of JSON Schema that bind several fields to each other.
        examples: messages, each under a word that says what is shown.

    """

    schema: str
    title: str
    summary: str
    struct: type[msgspec.Struct]
    encode: Callable[[Any], bytes]
    fields: Fields
    examples: Mapping[str, msgspec.Struct]
    condition: Keywords = field(default_factory=dict)


PARTS: Final[Mapping[type[msgspec.Struct], Fields]] = {FeedWorker: WORKER_FIELDS}
"""Structs that stand within messages."""

_SYMBOL: Final = "bitflyer:BTC_JPY"
_OPEN_TIME: Final = 1_723_161_180_000_000
_MINUTE: Final = 60_000_000
_FLAT: Final = {
    "first_trade_id": {"const": None},
    "last_trade_id": {"const": None},
    "volume": {"const": "0"},
    "quote_volume": {"const": "0"},
    "taker_buy_volume": {"const": "0"},
    "taker_buy_quote_volume": {"const": "0"},
}
_TRADED: Final = {"first_trade_id": {"type": "string"}, "last_trade_id": {"type": "string"}}

TRADE: Final = MessageSpec(
    schema=TRADE_SCHEMA,
    title="Trade",
    summary="One execution on an exchange.",
    struct=Trade,
    encode=encode_trade,
    fields=TRADE_FIELDS,
    examples={
        "trade": Trade(
            symbol=_SYMBOL,
            trade_id="2613590716",
            price=Decimal(8_763_519),
            size=Decimal("0.01"),
            side="buy",
            traded_at=1_723_161_239_870_000,
            received_at=1_723_161_239_912_345,
            sequence=2_613_590_716,
        )
    },
)

CANDLE: Final = MessageSpec(
    schema=CANDLE_SCHEMA,
    title="Candle",
    summary="The trades of a symbol with `open_time` <= `traded_at` < `close_time`, summed up.",
    struct=Candle,
    encode=encode_candle,
    fields=CANDLE_FIELDS,
    condition={
        "if": {"properties": {"trade_count": {"const": 0}}, "required": ["trade_count"]},
        "then": {"properties": _FLAT},
        "else": {"properties": _TRADED},
    },
    examples={
        "candle": Candle(
            symbol=_SYMBOL,
            timeframe="1m",
            open_time=_OPEN_TIME,
            close_time=_OPEN_TIME + _MINUTE,
            open=Decimal(8_760_001),
            high=Decimal(8_763_519),
            low=Decimal(8_760_000),
            close=Decimal(8_763_519),
            volume=Decimal("1.25"),
            quote_volume=Decimal("10951250.5"),
            trade_count=31,
            taker_buy_volume=Decimal("0.75"),
            taker_buy_quote_volume=Decimal("6571000.5"),
            first_trade_id="2613590686",
            last_trade_id="2613590716",
            version=1_789,
        ),
        "flat": Candle(
            symbol=_SYMBOL,
            timeframe="1m",
            open_time=_OPEN_TIME + _MINUTE,
            close_time=_OPEN_TIME + 2 * _MINUTE,
            open=Decimal(8_763_519),
            high=Decimal(8_763_519),
            low=Decimal(8_763_519),
            close=Decimal(8_763_519),
            volume=Decimal(0),
            quote_volume=Decimal(0),
            trade_count=0,
            taker_buy_volume=Decimal(0),
            taker_buy_quote_volume=Decimal(0),
            first_trade_id=None,
            last_trade_id=None,
            version=1_789,
        ),
        "in progress": Candle(
            symbol=_SYMBOL,
            timeframe="1m",
            open_time=_OPEN_TIME + _MINUTE,
            close_time=_OPEN_TIME + 2 * _MINUTE,
            open=Decimal(8_763_519),
            high=Decimal(8_763_520),
            low=Decimal(8_763_519),
            close=Decimal(8_763_520),
            volume=Decimal("0.02"),
            quote_volume=Decimal("175270.39"),
            trade_count=2,
            taker_buy_volume=Decimal("0.02"),
            taker_buy_quote_volume=Decimal("175270.39"),
            first_trade_id="2613590717",
            last_trade_id="2613590718",
            version=1_793,
        ),
    },
)

FEED_GAP: Final = MessageSpec(
    schema=FEED_GAP_SCHEMA,
    title="Feed gap",
    summary="A stretch of time in which trades of a symbol were not received as they happened.",
    struct=FeedGap,
    encode=encode_feed,
    fields=GAP_FIELDS,
    condition={
        "if": {"properties": {"final": {"const": True}}, "required": ["final"]},
        "then": {"properties": {"state": {"const": "lost"}}},
    },
    examples={
        "repaired": FeedGap(
            symbol=_SYMBOL,
            from_time=1_723_161_240_123_456,
            to_time=1_723_161_251_500_000,
            state="repaired",
            trades_recovered=37,
            reason="the venue closed the connection",
            updated_at=1_723_161_252_004_711,
        )
    },
)

FEED_STATUS: Final = MessageSpec(
    schema=FEED_STATUS_SCHEMA,
    title="Feed status",
    summary="How the feed of a symbol is now, so that no trades can be told from no feed, and up to when all trades "
    "are known.",
    struct=FeedStatus,
    encode=encode_feed,
    fields=STATUS_FIELDS,
    examples={
        "down": FeedStatus(
            symbol=_SYMBOL,
            state="down",
            since=1_723_161_240_123_456,
            reason="the venue closed the connection",
            last_trade_id="2613590716",
            last_traded_at=1_723_161_239_870_000,
            updated_at=1_723_161_240_123_500,
            complete_until=1_723_161_238_000_000,
            workers=(
                FeedWorker(
                    id="ingest-0/7f3a",
                    state="down",
                    heartbeat=1_723_161_240_123_500,
                    complete_until=1_723_161_238_000_000,
                ),
            ),
        )
    },
)

INSTRUMENT: Final = MessageSpec(
    schema=INSTRUMENT_SCHEMA,
    title="Instrument",
    summary="What the venue says of a market.",
    struct=Instrument,
    encode=encode_instrument,
    fields=INSTRUMENT_FIELDS,
    examples={
        "trading": Instrument(
            symbol="binance:BTCUSDT",
            base="BTC",
            quote="USDT",
            tick_size=Decimal("0.01"),
            lot_size=Decimal("0.00001"),
            state="trading",
            updated_at=1_723_161_240_123_500,
        )
    },
)

SIGNAL: Final = MessageSpec(
    schema=SIGNAL_SCHEMA,
    title="Signal",
    summary="What a strategy wants: the position in a symbol, from a candle's close on. A target and no order.",
    struct=Signal,
    encode=encode_signal,
    fields=SIGNAL_FIELDS,
    examples={
        "long": Signal(
            strategy="ma_cross(fast=9,slow=21)",
            symbol=_SYMBOL,
            timeframe="1m",
            open_time=_OPEN_TIME,
            close_time=_OPEN_TIME + _MINUTE,
            version=1_789,
            revision=0,
            target="long",
            strength=None,
            price=Decimal(8_763_519),
            reason="9 above 21",
            labels={"fast": "8761204.5", "slow": "8760990.25"},
            all_closed=True,
            is_complete=None,
            status="active",
            updated_at=1_723_161_242_100_000,
        )
    },
)

MESSAGES: Final = (TRADE, CANDLE, FEED_GAP, FEED_STATUS, INSTRUMENT, SIGNAL)
"""All of them, in the order of `docs/messages.md`."""
