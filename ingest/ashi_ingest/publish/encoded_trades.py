"""Trades of a file as batches of topic `trades`, without an object or a call for each of them."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

from ashi.contracts.trade import TRADE_SCHEMA
from ashi.runtime.kafka.dead_letters import message_headers
from ashi.runtime.kafka.encoded_batches import EncodedBatch, encode_records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ashi_ingest.venues.trade_columns import TradeColumns

MAX_RECORDS_BYTES: Final = 768 * 1024
"""Of a batch, before it is compressed: brokers take a megabyte."""
_MOST_LENGTHS: Final = 32
"""What a record says of its lengths, offset and time, bytes, and of a header's."""


def encode_trades(columns: TradeColumns, compression: str | None) -> Iterator[EncodedBatch]:
    """The trades as batches of about the same length, in their order."""
    values = columns.messages()
    key, headers = columns.symbol.encode(), message_headers(TRADE_SCHEMA)
    beside_value = len(key) + _MOST_LENGTHS + sum(len(name) + len(text) for name, text in headers)
    most = max(MAX_RECORDS_BYTES // (max(map(len, values), default=0) + beside_value), 1)
    at_once = max(ceil(len(values) / ceil(len(values) / most)), 1) if values else 1
    for begin in range(0, len(values), at_once):
        part = values[begin : begin + at_once]
        yield EncodedBatch(encode_records(key, part, headers), len(part), compression)
