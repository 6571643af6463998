"""The trade: one execution on one venue. Topic `trades`, key = symbol, schema `ashi.trade.v1`."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from operator import sub
from typing import Final, Literal

import msgspec

from ashi.contracts.decimals import (
    all_amounts_sound,
    check_amount,
    check_notation,
    format_decimal,
    is_plain_notation,
    needs_notation_check,
)
from ashi.contracts.errors import ClockError, ContractError
from ashi.contracts.json_messages import decode_json
from ashi.contracts.symbol import split_symbol

TRADE_SCHEMA: Final = "ashi.trade.v1"

EARLIEST_US: Final = 1_000_000_000_000_000
"""2001-09-09. Smaller numbers are seconds or milliseconds by mistake, not microseconds."""
LATEST_US: Final = 2**53 - 1
"""The greatest integer that is safe in JavaScript, in the year 2255. Greater ones are nanoseconds by mistake."""
MAX_SEQUENCE: Final = 2**63 - 1
MAX_ID_LENGTH: Final = 128

MAX_AHEAD_US: Final = 60_000_000
"""Recorders' and venues' clocks differ by seconds. A trade stamped further ahead of its receipt than this (µs) comes
from a clock that is wrong, and would close windows whose trades are still to come."""

Side = Literal["buy", "sell"]


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One execution.

    Attributes:
        symbol: `venue:MARKET`, the venue's own market name; the Kafka key.
        trade_id: the venue's id as text, unique within the symbol.
        price: in quote currency; not negative, at most 38 digits.
        size: in base currency; not negative, at most 38 digits.
        side: the taker's; None in an auction.
        traded_at: time of the execution, µs since the epoch, UTC.
        received_at: time the frame was received, µs; another clock, so it may precede `traded_at`.
        sequence: orders the trades of a symbol that share `traded_at`.

    """

    symbol: str
    trade_id: str
    price: Decimal
    size: Decimal
    side: Side | None
    traded_at: int
    received_at: int
    sequence: int


class _Amounts(msgspec.Struct, gc=False):
    price: msgspec.Raw
    size: msgspec.Raw


_decoder = msgspec.json.Decoder(Trade)
_trades_decoder = msgspec.json.Decoder(list[Trade])
_amounts_decoder = msgspec.json.Decoder(list[_Amounts])
_UNDERSCORES: Final = "".join(Trade.__struct_fields__).count("_")
_encoder = msgspec.json.Encoder()


def decode_trade(message: bytes) -> Trade:
    """Read and check one message of `trades`. Raises ContractError that names the field and what is wrong."""
    trade = decode_json(_decoder, message, "a trade")
    check_trade(trade)
    if needs_notation_check(message, _UNDERSCORES, (trade.symbol, trade.trade_id)):
        check_notation(message, ("price", "size"))
    return trade


def decode_trades(array: bytes) -> list[Trade] | None:
    """Read a JSON array of many messages of `trades` at once; None when any may not be what `decode_trade` accepts.

    Symbols aside, which it does not look at. Five times as fast as one by one.
    """
    try:
        trades = _trades_decoder.decode(array)
        texts = (text for trade in trades for text in (trade.symbol, trade.trade_id))
        if needs_notation_check(array, len(trades) * _UNDERSCORES, texts):
            amounts = _amounts_decoder.decode(array)
            if not is_plain_notation([each.price for each in amounts] + [each.size for each in amounts]):
                return None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return trades if all_sound(trades) else None


def check_trade(trade: Trade) -> None:
    """Check what the types do not say. Raises ContractError that names the field and what is wrong."""
    split_symbol(trade.symbol)
    if not 0 < len(trade.trade_id) <= MAX_ID_LENGTH:
        raise ContractError(f"trade_id has {len(trade.trade_id)} characters; it must have 1 to {MAX_ID_LENGTH}")
    check_amount("price", trade.price)
    check_amount("size", trade.size)
    check_time("traded_at", trade.traded_at)
    check_time("received_at", trade.received_at)
    ahead_us = trade.traded_at - trade.received_at
    if ahead_us > MAX_AHEAD_US:
        raise ClockError(
            f"traded_at {trade.traded_at} is {ahead_us / 1e6:.0f} s after received_at {trade.received_at}: more than "
            f"{MAX_AHEAD_US // 10**6} s means that one of the two clocks is wrong",
            ahead_us,
        )
    if not 0 <= trade.sequence <= MAX_SEQUENCE:
        raise ContractError(f"sequence {trade.sequence} is not from 0 to 2^63 - 1")


def all_sound(trades: Sequence[Trade]) -> bool:
    """Whether `check_trade` would accept every one of them, symbols aside: the same test on whole columns.

    False when in doubt; then `check_trade` tells which trade it is and why. An eighth of its cost on a chunk.
    """
    prices = [trade.price for trade in trades]
    sizes = [trade.size for trade in trades]
    traded_at = [trade.traded_at for trade in trades]
    received_at = [trade.received_at for trade in trades]
    sequences = [trade.sequence for trade in trades]
    id_lengths = [len(trade.trade_id) for trade in trades]
    try:
        return (
            all_amounts_sound(prices)
            and all_amounts_sound(sizes)
            and min(traded_at) >= EARLIEST_US
            and max(traded_at) <= LATEST_US
            and min(received_at) >= EARLIEST_US
            and max(received_at) <= LATEST_US
            and max(map(sub, traded_at, received_at)) <= MAX_AHEAD_US
            and min(sequences) >= 0
            and max(sequences) <= MAX_SEQUENCE
            and min(id_lengths) > 0
            and max(id_lengths) <= MAX_ID_LENGTH
        )
    except ArithmeticError:  # comparing a NaN, or a sum that would need more digits than any sound trades can
        return False


def check_time(field: str, time_us: int) -> None:
    """Refuse a time that is not in microseconds, guessing from its size which unit it was."""
    if EARLIEST_US <= time_us <= LATEST_US:
        return
    for unit, factor in (("seconds", 10**6), ("milliseconds", 10**3)):
        if EARLIEST_US <= time_us * factor <= LATEST_US:
            raise ContractError(f"{field} {time_us} looks like {unit}; it must be microseconds since the epoch")
    if EARLIEST_US <= time_us // 1000 <= LATEST_US:
        raise ContractError(f"{field} {time_us} looks like nanoseconds; it must be microseconds since the epoch")
    raise ContractError(f"{field} {time_us} is not a time in microseconds since the epoch between 2001 and 2255")


def encode_trade(trade: Trade) -> bytes:
    """JSON as in the contract: times in µs, decimals as plain strings."""
    price, size = str(trade.price), str(trade.size)
    if price[-1] != "0" and size[-1] != "0" and "E" not in price and "E" not in size:
        return _encoder.encode(trade)  # as nearly all, whose decimals need no change
    return _encoder.encode(
        {
            "symbol": trade.symbol,
            "trade_id": trade.trade_id,
            "price": format_decimal(trade.price),
            "size": format_decimal(trade.size),
            "side": trade.side,
            "traded_at": trade.traded_at,
            "received_at": trade.received_at,
            "sequence": trade.sequence,
        }
    )
