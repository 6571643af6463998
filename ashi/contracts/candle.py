"""The candle: the trades of one window of one symbol, summed up. Topic `candles`, schema `ashi.candle.v1`."""

from __future__ import annotations

from decimal import Decimal
from operator import attrgetter
from typing import Final

import msgspec

from ashi.contracts.decimals import EXACT, check_notation, format_decimal, needs_notation_check
from ashi.contracts.errors import ContractError
from ashi.contracts.json_messages import decode_json, plain_fields
from ashi.contracts.symbol import split_symbol
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.trade import check_time

CANDLE_SCHEMA: Final = "ashi.candle.v1"

EPOCH_BITS: Final = 40
MAX_EPOCH: Final = 2**13 - 1
MAX_VERSION: Final = 2**53 - 1


def make_version(epoch: int, offset: int) -> int:
    """`epoch * 2^40 + offset`: where in the log a candle's content comes from. Greater is more complete."""
    return (epoch << EPOCH_BITS) + offset


def epoch_of(version: int) -> int:
    """The epoch in a version."""
    return version >> EPOCH_BITS


class Candle(msgspec.Struct, frozen=True, gc=False):
    """One closed candle. It has every field of Binance's kline, so it can be checked against the exchange.

    Attributes:
        symbol: `venue:MARKET`; the Kafka key.
        timeframe: `1m`.
        open_time: µs, inclusive.
        close_time: µs, exclusive.
        open: price of the least trade by (traded_at, sequence), quote currency; `close` of the greatest.
        high: greatest price; `low` the least.
        volume: sum of sizes, base currency.
        quote_volume: sum of price * size, quote currency.
        trade_count: number of trades.
        taker_buy_volume: `volume` of the trades whose taker bought.
        taker_buy_quote_volume: `quote_volume` of those.
        first_trade_id: the trade that gave `open`; `last_trade_id` that of `close`; None in a flat candle.
        version: of two candles of one (symbol, timeframe, open_time) the greater is the more complete.

    """

    symbol: str
    timeframe: str
    open_time: int
    close_time: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    trade_count: int
    taker_buy_volume: Decimal
    taker_buy_quote_volume: Decimal
    first_trade_id: str | None
    last_trade_id: str | None
    version: int


DECIMAL_FIELDS: Final = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "taker_buy_volume",
    "taker_buy_quote_volume",
)

_UNDERSCORES: Final = "".join(Candle.__struct_fields__).count("_")
_decimals = attrgetter(*DECIMAL_FIELDS)
_decoder = msgspec.json.Decoder(Candle)
_encoder = msgspec.json.Encoder()


def decode_candle(message: bytes) -> Candle:
    """Read and check one message of `candles`. Raises ContractError that names the field and what is wrong."""
    candle = decode_json(_decoder, message, "a candle")
    check_candle(candle)
    others = (candle.symbol, candle.first_trade_id or "", candle.last_trade_id or "")
    if needs_notation_check(message, _UNDERSCORES, others):
        check_notation(message, DECIMAL_FIELDS)
    return candle


def check_candle(candle: Candle) -> None:
    """Check what the types do not say. Raises ContractError that names the field and what is wrong."""
    split_symbol(candle.symbol)
    timeframe = Timeframe.parse(candle.timeframe)
    check_time("close_time", candle.close_time)
    if candle.open_time != timeframe.open_time(candle.open_time):
        raise ContractError(f"open_time {candle.open_time} is not the start of a {timeframe} window")
    if candle.close_time != candle.open_time + timeframe.length_us:
        raise ContractError(f"close_time {candle.close_time} is not open_time plus {timeframe}")
    for value in _decimals(candle):
        # In one sweep, as nearly all are sound: a NaN and an infinity have an adjusted exponent of 0.
        if not value.is_finite() or value.is_signed() or not -EXACT.prec <= value.adjusted() <= EXACT.prec:
            _check_decimals(candle)
            break
    if not (candle.low <= candle.open <= candle.high and candle.low <= candle.close <= candle.high):
        raise ContractError("open and close must lie between low and high")
    if candle.trade_count < 0:
        raise ContractError(f"trade_count {candle.trade_count} is negative")
    if not 0 <= candle.version <= MAX_VERSION:
        raise ContractError(f"version {candle.version} is not from 0 to 2^53 - 1")


def _check_decimals(candle: Candle) -> None:
    for field in DECIMAL_FIELDS:
        value: Decimal = getattr(candle, field)
        if not value.is_finite() or value < 0:
            raise ContractError(f"{field} {value} is not a finite number of zero or more")
        if abs(value.adjusted()) > EXACT.prec:
            # `1E+999999999` is a few bytes here and a gigabyte in plain notation.
            raise ContractError(f"{field} {str(value)[:60]} is far out of the range of sums of trades")


def candle_fields(candle: Candle) -> dict[str, str | int | None]:
    """The message as plain values in field order: decimals as plain strings, times in µs."""
    return plain_fields(candle)


class _Message(msgspec.Struct, gc=False):
    """A candle as it is written: the same fields, decimals as plain strings. Encoding it costs half of a dict's."""

    symbol: str
    timeframe: str
    open_time: int
    close_time: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    trade_count: int
    taker_buy_volume: str
    taker_buy_quote_volume: str
    first_trade_id: str | None
    last_trade_id: str | None
    version: int


def encode_candle(candle: Candle) -> bytes:
    """JSON as in the contract: times in µs, decimals as plain strings."""
    opened, closed = candle.open, candle.close
    open_text = format_decimal(opened)
    return _encoder.encode(
        _Message(
            candle.symbol,
            candle.timeframe,
            candle.open_time,
            candle.close_time,
            open_text,
            # Often one number is several of them: of a single trade and of a flat candle all four.
            open_text if candle.high is opened else format_decimal(candle.high),
            open_text if candle.low is opened else format_decimal(candle.low),
            open_text if closed is opened else format_decimal(closed),
            format_decimal(candle.volume),
            format_decimal(candle.quote_volume),
            candle.trade_count,
            format_decimal(candle.taker_buy_volume),
            format_decimal(candle.taker_buy_quote_volume),
            candle.first_trade_id,
            candle.last_trade_id,
            candle.version,
        )
    )
