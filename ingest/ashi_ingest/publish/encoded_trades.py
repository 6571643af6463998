"""Trades in columns as batches of topic `trades`, without an object or a call for each of them."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

from ashi.contracts.trade import TRADE_SCHEMA
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi.runtime.kafka.producing.encoded_batches import EncodedBatch, encode_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ashi_ingest.venues.trade_columns import ReceivedColumns, TradeColumns

MAX_RECORDS_BYTES: Final = 768 * 1024
"""Of a batch, before it is compressed: brokers take a megabyte."""
_MOST_LENGTHS: Final = 32
"""What a record says of its lengths, offset and time, bytes, and of a header's."""


def encode_trades(columns: TradeColumns, compression: str | None) -> Iterator[EncodedBatch]:
    """The trades as batches of about the same length, in their order."""
    return _batches([columns.symbol.encode()], columns.messages(), compression)


def encode_received(
    columns: ReceivedColumns, partition_of: Callable[[str], int], compression: str | None
) -> Iterator[tuple[int, EncodedBatch]]:
    """The trades as batches, each with its partition; those of a symbol in their order."""
    symbols, messages = columns.symbols, columns.messages()
    keys = {symbol: symbol.encode() for symbol in {*symbols}}
    partitions = {symbol: partition_of(symbol) for symbol in keys}
    rows: dict[int, list[int]] = {partition: [] for partition in sorted({*partitions.values()})}
    for row, symbol in enumerate(symbols):
        rows[partitions[symbol]].append(row)
    for partition, here in rows.items():
        values = messages if len(rows) == 1 else [messages[row] for row in here]
        of_each = [*keys.values()] if len(keys) == 1 else [keys[symbols[row]] for row in here]
        for batch in _batches(of_each, values, compression):
            yield partition, batch


def _batches(keys: Sequence[bytes], values: Sequence[bytes], compression: str | None) -> Iterator[EncodedBatch]:
    """`keys`: one for all of them, or one for each."""
    headers = message_headers(TRADE_SCHEMA)
    beside_value = max(map(len, keys)) + _MOST_LENGTHS + sum(len(name) + len(text) for name, text in headers)
    most = max(MAX_RECORDS_BYTES // (max(map(len, values), default=0) + beside_value), 1)
    at_once = max(ceil(len(values) / ceil(len(values) / most)), 1) if values else 1
    for begin in range(0, len(values), at_once):
        part = values[begin : begin + at_once]
        of_part = keys if len(keys) == 1 else keys[begin : begin + at_once]
        yield EncodedBatch(encode_records(of_part, part, headers), len(part), compression)
