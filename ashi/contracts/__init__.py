"""The public contract: messages, timeframes, symbols and topics. Pure: no I/O, no client library."""

from ashi.contracts.candle import Candle, decode_candle, encode_candle, make_version
from ashi.contracts.errors import (
    AshiError,
    BrokerError,
    ContractError,
    RecordingError,
    StateError,
    StorageError,
    UsageError,
)
from ashi.contracts.symbol import make_symbol, split_symbol
from ashi.contracts.timeframe import Timeframe, parse_timeframes
from ashi.contracts.trade import Trade, decode_trade, encode_trade

__all__ = [
    "AshiError",
    "BrokerError",
    "Candle",
    "ContractError",
    "RecordingError",
    "StateError",
    "StorageError",
    "Timeframe",
    "Trade",
    "UsageError",
    "decode_candle",
    "decode_trade",
    "encode_candle",
    "encode_trade",
    "make_symbol",
    "make_version",
    "parse_timeframes",
    "split_symbol",
]
