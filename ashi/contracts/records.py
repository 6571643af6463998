"""What message a Kafka record holds: by its header `schema`, its key and its value, one rule for every reader."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeVar

from ashi.contracts.candle import CANDLE_SCHEMA, Candle, decode_candle
from ashi.contracts.errors import ContractError
from ashi.contracts.feed import (
    FEED_GAP_SCHEMA,
    FEED_STATUS_SCHEMA,
    FeedGap,
    FeedStatus,
    decode_feed_gap,
    decode_feed_status,
)
from ashi.contracts.instrument import INSTRUMENT_SCHEMA, Instrument, decode_instrument
from ashi.contracts.signal import SIGNAL_SCHEMA, Signal, decode_signal
from ashi.contracts.trade import TRADE_SCHEMA, Trade, decode_trade

SCHEMA_HEADER: Final = "schema"
COPY_HEADER: Final = "ashi.copy"
"""Of a trade that stands in the topic before, in the partition that its symbol had: see `ashi_aggregate.growth`. Its
value is when that was appended, µs: the symbol is as quiet as it has been since then."""
SINCE_HEADER: Final = "ashi.since"
"""Of trades that were brought into the log from elsewhere: what was traded before this time, µs, may be missing."""
HISTORY_HEADER: Final = "ashi.history"
"""Of candles that were made of files, of trades older than all that the workers have: `ashi history load`. Its value is
the number of the load. A reader that follows what happens now may pass over them."""
_SHOWN: Final = 100
_LONGEST_TIME: Final = 16

Headers = Iterable[tuple[str, bytes | None]]


def time_in(headers: Headers, name: str) -> int | None:
    """The time in a header, µs; None where there is none, or something else."""
    for header, value in headers:
        if header == name and value is not None and value.isdigit() and len(value) <= _LONGEST_TIME:
            return int(value)
    return None


def is_loaded(record: KafkaRecord) -> bool:
    """Whether a record of topic `candles` was made of files by `ashi history load`."""
    return any(header == HISTORY_HEADER for header, _ in record.headers)


class KafkaRecord(Protocol):
    """What is needed of a record, as Kafka's clients give it."""

    @property
    def key(self) -> bytes | None:
        """The record's key."""

    @property
    def value(self) -> bytes | None:
        """The record's value."""

    @property
    def headers(self) -> Headers:
        """The record's headers, in order."""


class _OfSymbol(Protocol):
    @property
    def symbol(self) -> str:
        """Whose message it is."""


_Message = TypeVar("_Message", bound=_OfSymbol)


def check_schema(headers: Headers, schema: str) -> None:
    """Refuse a message of another schema or version than `schema`: what its fields mean is not known.

    One without the header, or with a null in it, is taken for `schema`; of several the last counts. Raises
    ContractError.
    """
    named = None
    for name, value in headers:
        if name == SCHEMA_HEADER:
            named = value
    if named is not None and named != schema.encode():
        text = named[:_SHOWN].decode(errors="backslashreplace")
        raise ContractError(f"the schema {text!r} is not known here: this version of Ashi reads {schema!r}")


def check_key(key: bytes | None, symbol: str, what: str) -> None:
    """Refuse a message under another key than its symbol: it is not in its place. Raises ContractError."""
    if key != symbol.encode():
        raise ContractError(f"the record's key {(key or b'')[:_SHOWN]!r} is not its {what}'s symbol {symbol!r}")


def trade_in(record: KafkaRecord) -> Trade:
    """The trade in a record. As each of these raises ContractError when the record holds no such message."""
    return _message_in(record, TRADE_SCHEMA, decode_trade, "trade")


def candle_in(record: KafkaRecord) -> Candle:
    """The candle in a record."""
    return _message_in(record, CANDLE_SCHEMA, decode_candle, "candle")


def live_key(symbol: str, timeframe: str) -> bytes:
    """The key of a candle in progress, in topic `candles.live`: `bitflyer:BTC_JPY/1m`."""
    return f"{symbol}/{timeframe}".encode()


def split_live_key(key: bytes) -> tuple[bytes, bytes]:
    """Symbol and timeframe of such a key; a market's name may hold a slash, a timeframe's none."""
    symbol, _, timeframe = key.rpartition(b"/")
    return symbol, timeframe


def live_candle_in(record: KafkaRecord) -> Candle:
    """The candle in progress in a record of `candles.live`."""
    check_schema(record.headers, CANDLE_SCHEMA)
    if record.value is None:
        raise ContractError("not a candle: the record has no value")
    candle = decode_candle(record.value)
    wanted = live_key(candle.symbol, candle.timeframe)
    if record.key != wanted:
        raise ContractError(f"the record's key {(record.key or b'')[:_SHOWN]!r} is not its candle's {wanted!r}")
    return candle


def feed_gap_in(record: KafkaRecord) -> FeedGap:
    """The feed gap in a record."""
    return _message_in(record, FEED_GAP_SCHEMA, decode_feed_gap, "gap")


def feed_status_in(record: KafkaRecord) -> FeedStatus:
    """The feed status in a record."""
    return _message_in(record, FEED_STATUS_SCHEMA, decode_feed_status, "status")


def instrument_in(record: KafkaRecord) -> Instrument:
    """The instrument in a record."""
    return _message_in(record, INSTRUMENT_SCHEMA, decode_instrument, "instrument")


def signal_in(record: KafkaRecord) -> Signal:
    """The signal in a record."""
    return _message_in(record, SIGNAL_SCHEMA, decode_signal, "signal")


def _message_in(record: KafkaRecord, schema: str, decode: Callable[[bytes], _Message], what: str) -> _Message:
    check_schema(record.headers, schema)
    if record.value is None:
        raise ContractError(f"not a {what}: the record has no value")
    message = decode(record.value)
    check_key(record.key, message.symbol, what)
    return message
