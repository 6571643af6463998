"""Foreign bytes: the library reads them or refuses them, and never ends the process that asks it."""

from __future__ import annotations

import random

import pytest

from ashi.contracts import Timeframe, decode_trade, encode_trade
from ashi.contracts.errors import ContractError
from ashi.contracts.trade import TRADE_SCHEMA
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi_aggregate import WindowRules
from ashi_aggregate.chunk import Chunk
from ashi_aggregate.core.codec import ROW_FORMAT
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.native.columns import ScannedRecords
from ashi_aggregate.native.decoder import NativeDecoder
from ashi_aggregate.native.kernel import Malformed
from kafka_topics.fetched_batches import encode_batch, kernel
from kafka_topics.simulated_log import Record
from samples.hypothesis_strategies import START, drawn_trade


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Bytes changed, cut, repeated or put in."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(changed) or 1)
        kind = rng.randrange(5)
        if kind == 0 and changed:
            changed[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif kind == 1:
            del changed[at:]
        elif kind == 2:
            changed[at:at] = rng.choice([b"\xff" * 10, b"\x80" * 11, bytes(8), rng.randbytes(5)])
        elif kind == 3:
            del changed[at : at + rng.randrange(1, 9)]
        else:
            changed += changed[at:]
    return bytes(changed)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_batches_are_read_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    rules = WindowRules(finest=Timeframe.parse("1m"))
    headers = tuple(message_headers(TRADE_SCHEMA))
    trades = [drawn_trade(rng, ["binance:A", "gmo:B"], str(number), START + number, number) for number in range(30)]
    records = [
        Record(number, trade.symbol.encode(), encode_trade(trade), 1_700_000_000_000, headers=headers)
        for number, trade in enumerate(trades)
    ]
    whole = encode_batch(records[:20]) + encode_batch(records[20:])
    read = refused = 0
    for _ in range(300):
        data = damaged(rng, whole)
        try:
            scanned = ScannedRecords(kernel(), kernel().scan(data, rng.choice([0, 5, 10**9]), 64))
        except Malformed:
            refused += 1
            continue
        read += 1
        for record in scanned:
            assert record.key is None or record.key in data
        groups, _ = NativeDecoder(1).decode(Chunk(0, 0, 10**9, scanned))
        aggregators = {symbol: SymbolAggregator((rules.finest,), rules) for symbol in groups}
        NativeDecoder(1).fold(groups, aggregators, rules)
    assert read > 5
    assert refused > 5


def test_a_time_is_read_digit_by_digit_whatever_stands_in_it() -> None:
    (trade,) = [drawn_trade(random.Random(1), ["binance:A"], "7", START, 7)]
    value, time = encode_trade(trade), str(trade.traded_at).encode()
    at = value.index(b'"traded_at":' + time) + len(b'"traded_at":')
    values = [value]
    values += [
        value[: at + place] + bytes([char]) + value[at + place + 1 :]
        for place in range(len(time))
        for char in range(256)
    ]
    values += [value[:at] + time[:length] + value[at + len(time) :] for length in range(len(time))]
    values += [value[:at] + time + b"0" * more + value[at + len(time) :] for more in range(1, 9)]
    headers = tuple(message_headers(TRADE_SCHEMA))
    records = [
        Record(number, b"binance:A", each, 1_700_000_000_000, headers=headers) for number, each in enumerate(values)
    ]
    scanned = ScannedRecords(kernel(), kernel().scan(encode_batch(records), 0, len(records)))
    read = [number for number in range(len(values)) if not scanned.column(number)[12]]
    assert 0 in read
    for number in read:
        assert scanned.column(number)[2] == decode_trade(values[number]).traded_at
    # Whatever is a time and was not read natively would only be slow, but there is none of that either.
    assert len(read) == sum(_is_trade(each) for each in values)


def _is_trade(value: bytes) -> bool:
    try:
        decode_trade(value)
    except ContractError:
        return False
    return True


@pytest.mark.parametrize("seed", range(10))
def test_damaged_changelogs_are_read_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    rows = [
        Record(number, b"key-%d" % (number % 5), bytes([ROW_FORMAT]) + number.to_bytes(8) + b"row", 1_700_000_000_000)
        for number in range(40)
    ]
    whole = encode_batch(rows)
    outcomes = set()
    for _ in range(300):
        try:
            newest = kernel().newest(damaged(rng, whole), 0, 64, ROW_FORMAT)
        except Malformed:
            outcomes.add("refused")
        else:
            outcomes.add("read")
            assert len(newest.rows) <= 2 * newest.records
    assert outcomes == {"refused", "read"}
