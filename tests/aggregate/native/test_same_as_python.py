"""What the native library hands over is what Python makes of the same bytes: outcomes, rows, rejected records."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts import Timeframe, Trade, decode_trade, encode_trade
from ashi.contracts.records import COPY_HEADER
from ashi.contracts.trade import TRADE_SCHEMA
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.kafka.consuming.raw_batches import RawBatches
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi.runtime.metrics.aggregate import records_slow
from ashi_aggregate import WindowRules
from ashi_aggregate.chunk import Chunk, ChunkDecoder
from ashi_aggregate.core import trade_ids
from ashi_aggregate.core.codec import decode_row, encode
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.native.columns import SymbolColumns, scan
from ashi_aggregate.native.decoder import NativeDecoder
from ashi_aggregate.native.kernel import Verdict
from kafka_topics.fetched_batches import encode_batch, kernel
from kafka_topics.simulated_log import Record
from samples.hypothesis_strategies import START

SYMBOLS = ["binance:A", "gmo:B", "bitflyer:币"]
PARTITIONS = 2
HOME = partition_of(SYMBOLS[0].encode(), PARTITIONS)
HEADERS = message_headers(TRADE_SCHEMA)
SEEDS = 240
APPENDED_MS = 1_700_000_000_000

IDS: dict[str, Callable[[random.Random, int], str]] = {
    "ascending": lambda _, number: str(number + 1),
    "scattered": lambda rng, number: str(number * rng.choice([1, 1, 3]) + 1),
    "descending": lambda _, number: str(100_000 - number),
    "texts": lambda _, number: f"{number:x}-z",
    "mixed": lambda rng, number: rng.choice([str(number), f"0{number}", f"x{number}", str(10**20 + number)]),
    "repeated": lambda rng, number: str(rng.randint(1, number + 1)),
}


def amount(rng: random.Random) -> Decimal:
    kind = rng.random()
    if kind < 0.8:
        return Decimal(rng.randint(0, 10 ** rng.randint(1, 9))) / 10 ** rng.randint(0, 8)
    if kind < 0.9:
        return Decimal(rng.randint(0, 10**18 - 1)).scaleb(-rng.randint(0, 17))
    return Decimal(rng.randint(0, 10**38 - 1)).scaleb(-rng.randint(0, 38))


def odd(rng: random.Random, value: bytes) -> bytes | None:
    """A value that is legal in another way, or not at all."""
    changed: list[bytes | None] = [
        value.replace(b'":', b'": ', 1),
        value[:-1],
        b"",
        None,
        value.replace(b"buy", b"BUY"),
        value.replace(b'"price":"', b'"price":"1'),
        value.replace(b'"size":"', b'"size":"-'),
        value.replace(b'"size":"', b'"size":"0'),
        value.replace(b'","size"', b'0","size"'),
        value.replace(b'"price":"', b'"price":"+'),
        value.replace(b'"traded_at":', b'"traded_at":0'),
        value.replace(b'"traded_at":17', b'"traded_at":1.7e'),
        value.replace(b'"received_at":17', b'"received_at":16'),
        value.replace(b'"sequence":', b'"sequence":9223372036854775808,"other":'),
        value.replace(b'"sequence":', b'"sequence":-'),
        value + b" ",
        value + value,
        b"[" + value + b"]",
        value.replace(b'"trade_id":"', b'"trade_id":"\\u0041'),
        value.replace(b'"trade_id":"', b'"trade_id":"' + b"7" * 128),
        value.replace(b"sell", b"b"),
    ]
    at = rng.randrange(len(value))
    changed += [value[:at] + bytes([rng.randrange(256)]) + value[at + 1 :]] * 5
    return rng.choice(changed)


class History:
    """A log of trades and of what is none, drawn."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.in_order = rng.random() < 0.7
        self.is_late = rng.random() < 0.5
        self.ids = IDS[rng.choice(list(IDS))]
        self.shared_sequence = rng.random() < 0.3
        self.odd = rng.choice([0, 0, 0.02, 0.3])
        self.span_us = rng.choice([10**6, 10**8, 10**9])
        finest = rng.choice(["1s", "1m"])
        names = [finest, "5m", "1h"] if rng.random() < 0.8 else [finest]
        self.timeframes = tuple(Timeframe.parse(name) for name in names)
        self.rules = WindowRules(
            finest=self.timeframes[0],
            lateness_us=rng.choice([0, 2_000_000]),
            horizon_us=rng.choice([5_000_000, 120_000_000]),
            epoch=3,
        )
        self.records = self._draw()

    def _draw(self) -> list[Record]:
        rng, offset = self.rng, self.rng.choice([0, 7])
        records: list[Record] = []
        trades: list[Trade] = []
        for number in range(rng.choice([1, 5, 50, 300])):
            trade = self._trade(number)
            if trades and rng.random() < 0.1:
                trade = rng.choice(trades)
            trades.append(trade)
            key: bytes | None = trade.symbol.encode()
            value: bytes | None = encode_trade(trade)
            headers: Sequence[tuple[str, bytes | None]] = tuple(HEADERS)
            if rng.random() < self.odd:
                assert value is not None
                kind = rng.random()
                if kind < 0.5:
                    value = odd(rng, value)
                elif kind < 0.8:
                    key = rng.choice([None, b"", b"\xff\xfe", rng.choice(SYMBOLS).encode()])
                else:
                    headers = rng.choice(
                        [
                            (("schema", b"ashi.trade.v2"),),
                            (("schema", None),),
                            (("x", b"y"),),
                            (*HEADERS, (COPY_HEADER, b"1600000000000000")),
                            (*HEADERS, (COPY_HEADER, b"no time")),
                            (),
                            (("schema", TRADE_SCHEMA.encode()), ("é", b"")),
                            (("schema", b"ashi.trade.v2"), ("schema", TRADE_SCHEMA.encode())),
                        ]
                    )
            records.append(Record(offset, key, value, 1_700_000_000_000 + number, rng.choice([0, 1]), headers=headers))
            offset += rng.choice([1, 1, 1, 2])
        return records

    def _trade(self, number: int) -> Trade:
        rng = self.rng
        at = START + (number * rng.choice([0, 200_000, 1_000_000]) if self.in_order else rng.randint(0, self.span_us))
        at -= rng.choice([0, 0, 0, rng.randint(0, 3_000_000), rng.randint(0, 200_000_000) if self.is_late else 0])
        sequence = rng.choice([number, 0]) if self.shared_sequence else number
        side: Any = rng.choice(["buy", "sell", None])
        trade_id = self.ids(rng, number)
        received_at = at + rng.randint(-1, 50_000)
        return Trade(rng.choice(SYMBOLS), trade_id, amount(rng), amount(rng), side, at, received_at, sequence)

    def chunks(self) -> list[tuple[int, bytes, list[Record]]]:
        """The log cut into fetches: from which offset on, the bytes, the records that are in it from there on."""
        rng, left, chunks = self.rng, self.records, []
        while left:
            data, records = b"", []
            for _ in range(rng.choice([1, 1, 2])):
                taken, left = left[: (count := rng.choice([1, 3, 20, 1000]))], left[count:]
                for kind in (0, 1):
                    # A batch has one kind of time, and of append time one for all.
                    these = [record for record in taken if record.timestamp_type == kind]
                    if kind:
                        data += b"".join(encode_batch([record]) for record in these)
                    elif these:
                        data += encode_batch(these)
                records += sorted(taken, key=lambda record: (record.timestamp_type or 0, record.offset))
            begin = records[0].offset if rng.random() < 0.9 else rng.choice(records).offset
            chunks.append((begin, data, [record for record in records if record.offset >= begin]))
        return chunks


def bare(outcome: Any, group: Any) -> Any:
    late = [(late.trade, late.stream_time, late.reason, group.record(late.place).offset) for late in outcome.late]
    return outcome.candles, outcome.counted, outcome.duplicates, outcome.changed, late


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_the_bytes_both_ways_end_in_the_same(seed: int) -> None:
    history = History(seed)
    by_python: dict[str, SymbolAggregator] = {}
    natively: dict[str, SymbolAggregator] = {}
    python, native = ChunkDecoder(PARTITIONS), NativeDecoder(PARTITIONS)
    for begin, data, records in history.chunks():
        end = records[-1].offset + 1
        scanned = scan(kernel(), RawBatches(data, len(history.records)), begin)
        assert [
            (each.offset, each.key, each.value, tuple(each.headers), each.timestamp, each.timestamp_type)
            for each in scanned
        ] == [
            (each.offset, each.key, each.value, tuple(each.headers), each.timestamp, each.timestamp_type)
            for each in records
        ]
        expected, expected_rejected = python.decode(Chunk(HOME, begin, end, records))
        groups, rejected = native.decode(Chunk(HOME, begin, end, scanned))
        assert [(each.record.offset, each.reason, each.kind) for each in rejected] == [
            (each.record.offset, each.reason, each.kind) for each in expected_rejected
        ]
        assert {symbol: group.appended_at for symbol, group in groups.items()} == {
            symbol: group.appended_at for symbol, group in expected.items()
        }
        for symbol in expected:
            for aggregators in (by_python, natively):
                aggregators.setdefault(symbol, SymbolAggregator(history.timeframes, history.rules))
        outcomes = native.fold(groups, natively, history.rules)
        for symbol, group in expected.items():
            outcome = group.fold_into(by_python[symbol])
            assert bare(outcome, group) == bare(outcomes[symbol], groups[symbol]), symbol
        if history.rng.random() < 0.5:
            for symbol, aggregator in by_python.items():
                for each in (aggregator, natively[symbol]):
                    each.corrections()
                    each.drop_final()
                assert [decode_row(encode(row)) for row in natively[symbol].state_rows()] == [
                    decode_row(encode(row)) for row in aggregator.state_rows()
                ]


def slow() -> dict[str, float]:
    return {sample.labels["reason"]: sample.value for metric in records_slow.collect() for sample in metric.samples
            if sample.name.endswith("_total")}  # fmt: skip


def fold(trades: Sequence[Trade], aggregators: dict[str, SymbolAggregator], rules: WindowRules, begin: int = 0) -> Any:
    """The outcomes of trades in one fetch, natively, and how many records Python folded for which reason."""
    records = [
        Record(begin + number, trade.symbol.encode(), encode_trade(trade), APPENDED_MS, headers=tuple(HEADERS))
        for number, trade in enumerate(trades)
    ]
    before = slow()
    decoder = NativeDecoder(1)
    scanned = scan(kernel(), RawBatches(encode_batch(records), len(records)), begin)
    groups, rejected = decoder.decode(Chunk(0, begin, begin + len(records), scanned))
    assert not rejected
    assert all(isinstance(group, SymbolColumns) for group in groups.values())
    for symbol in groups:
        aggregators.setdefault(symbol, SymbolAggregator((rules.finest,), rules))
    outcomes = decoder.fold(groups, aggregators, rules)
    after = slow()
    return outcomes, {reason: int(count - before.get(reason, 0)) for reason, count in after.items()
                      if count != before.get(reason, 0)}  # fmt: skip


RULES = WindowRules(finest=Timeframe.parse("1m"))


def some(count: int, *, ids: Callable[[int], str] = lambda number: str(number + 1), price: str = "1.5") -> list[Trade]:
    return [
        Trade("binance:A", ids(number), Decimal(price), Decimal(2), "buy", START + number, START + number, number)
        for number in range(count)
    ]


@pytest.mark.parametrize("ids", IDS)
def test_legal_trades_are_folded_natively_whatever_their_ids(ids: str) -> None:
    rng = random.Random(1)
    trades = some(500, ids=lambda number: IDS[ids](rng, number))
    python = SymbolAggregator((RULES.finest,), RULES)
    expected = python.on_trades(trades, range(500), APPENDED_MS * 1000)
    for _ in range(2):
        natively: dict[str, SymbolAggregator] = {}
        outcomes, by_python = fold(trades, natively, RULES)
        assert (outcomes["binance:A"].counted, outcomes["binance:A"].duplicates) == (
            expected.counted,
            expected.duplicates,
        )
        assert natively["binance:A"].state_rows() == python.state_rows()
        assert not by_python


def test_trades_that_come_again_from_another_ingester_are_counted_once_natively() -> None:
    natively: dict[str, SymbolAggregator] = {}
    trades = some(400)
    first, _ = fold(trades[:250], natively, RULES)
    # The partner is behind: what it sends has mostly been seen, and some not.
    again, by_python = fold([*trades[100:300], *trades[200:400]], natively, RULES, begin=1000)
    assert (first["binance:A"].counted, again["binance:A"].counted, again["binance:A"].duplicates) == (250, 150, 250)
    assert not by_python
    assert natively["binance:A"].rows[0].row.ids[START].numbers == [1, 401]


def test_a_sum_of_more_than_128_bits_is_left_to_python_and_exact() -> None:
    greatest = "999999999999999999"
    trades = [
        Trade("binance:A", str(number + 1), Decimal(greatest), Decimal(greatest), None, START, START, number)
        for number in range(400)
    ]
    natively: dict[str, SymbolAggregator] = {}
    for begin, ids in ((0, "numbers"), (1000, "texts")):
        more = trades if ids == "numbers" else [
            Trade("binance:A", f"x{each.trade_id}", each.price, each.size, None, START, START, 500 + each.sequence)
            for each in trades
        ]  # fmt: skip
        outcomes, by_python = fold(more, natively, RULES, begin)
        assert outcomes["binance:A"].counted == 400
        assert by_python == {"overflow": 400}
    fold_of = natively["binance:A"].rows[0].row.windows[START].fold
    assert fold_of.quote_volume == Decimal(800 * int(greatest) ** 2)
    assert fold_of.volume == Decimal(800 * int(greatest))


def natively_and_by_python(
    trades: Sequence[Trade], names: Sequence[str], cuts: Sequence[int]
) -> tuple[SymbolAggregator, SymbolAggregator, dict[str, int]]:
    """What both ways make of trades of one symbol that come in as many fetches as there are `cuts` and one more."""
    timeframes = tuple(Timeframe.parse(name) for name in names)
    rules = WindowRules(finest=timeframes[0])
    native, python = (SymbolAggregator(timeframes, rules) for _ in range(2))
    slow_reasons: dict[str, int] = {}
    trades = [decode_trade(encode_trade(trade)) for trade in trades]  # numbers as they are written
    for begin, end in pairwise([0, *cuts, len(trades)]):
        outcomes, reasons = fold(trades[begin:end], {trades[0].symbol: native}, rules, begin)
        expected = python.on_trades(trades[begin:end], range(begin, end), APPENDED_MS * 1000)
        assert outcomes[trades[0].symbol] == expected
        slow_reasons |= reasons
    assert [encode(row) for row in python.state_rows()] == [encode(row) for row in native.state_rows()]
    return native, python, slow_reasons


@given(st.data())
def test_sums_and_prices_are_those_of_python_to_the_last_digit_in_every_timeframe(data: st.DataObject) -> None:
    amounts = st.decimals(0, 10**9, allow_nan=False, places=data.draw(st.integers(0, 9)))
    mixed = st.one_of(
        amounts, st.integers(0, 10**18 - 1).map(Decimal), st.sampled_from(["0", "1E-17", "0.1"]).map(Decimal)
    )
    count = data.draw(st.integers(1, 40))
    step_us = data.draw(st.sampled_from([1_000, 700_000, 61_000_000]))
    trades = [
        Trade(
            "binance:A",
            str(number + 1),
            data.draw(mixed),
            data.draw(mixed),
            data.draw(st.sampled_from(["buy", "sell", None])),
            START + number * step_us,
            START + number * step_us,
            number,
        )
        for number in range(count)
    ]
    cuts = sorted(data.draw(st.sets(st.integers(1, count), max_size=3)) - {count})
    natively_and_by_python(trades, ["1s", "1m", "1h"], cuts)


@given(st.data())
def test_ids_that_are_texts_count_as_python_counts_them(data: st.DataObject) -> None:
    # Few ids and times around the ends of windows: copies within a fetch, between fetches and in the window beside.
    ids = st.one_of(st.sampled_from(["a", "b", "c-1", "x" * 40, "07", "7", "9" * 20]), st.text("xyz", min_size=1))
    trades = [
        Trade("binance:A", data.draw(ids), Decimal("1.5"), Decimal(2), "buy", at, at, number)
        for number, at in enumerate(
            START + 60_000_000 * data.draw(st.integers(0, 3)) + data.draw(st.integers(-1_500_000, 1_500_000))
            for _ in range(data.draw(st.integers(1, 25)))
        )
    ]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(trades)), max_size=4)) - {len(trades)})
    timeframes = tuple(Timeframe.parse(name) for name in ("1m", "5m"))
    rules = WindowRules(finest=timeframes[0])
    native, python = (SymbolAggregator(timeframes, rules) for _ in range(2))
    for begin, end in pairwise([0, *cuts, len(trades)]):
        outcomes, _ = fold(trades[begin:end], {"binance:A": native}, rules, begin)
        assert outcomes["binance:A"] == python.on_trades(trades[begin:end], range(begin, end), APPENDED_MS * 1000)
        assert python.state_rows() == native.state_rows()
        assert len(native.rows[0].ids) == len(python.rows[0].ids)


def test_texts_that_come_again_from_another_ingester_are_counted_once_natively() -> None:
    natively: dict[str, SymbolAggregator] = {}
    trades = some(400, ids="{:x}-z".format)
    fold(trades[:250], natively, RULES)
    again, by_python = fold([*trades[100:300], *trades[200:400]], natively, RULES, begin=1000)
    assert (again["binance:A"].counted, again["binance:A"].duplicates) == (150, 250)
    assert not by_python
    assert len(natively["binance:A"].rows[0].row.ids[START].texts) == 400


def test_texts_that_are_too_many_to_keep_give_up_the_oldest_window_as_python_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trade_ids, "MAX_IDS", 50)
    trades = [
        Trade("binance:A", f"x{number}", Decimal(1), Decimal(2), "buy", at, at, number)
        for number, at in ((number, START + number * 1_000_000) for number in range(120))
    ]
    native, _, by_python = natively_and_by_python(trades, ["1m", "5m"], [30, 70, 100])
    assert native.rows[0].row.dropped_until > START
    assert not by_python


def test_more_trades_than_intervals_are_kept_are_folded_natively_if_their_ids_are_dense(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trade_ids, "MAX_IDS", 50)
    _, _, by_python = natively_and_by_python(some(400), ["1m", "5m"], [100])
    assert not by_python


def test_more_than_the_first_room_for_what_the_library_tells() -> None:
    trades = [
        Trade("binance:A", f"{number:x}-".ljust(128, "z"), Decimal("1.5"), Decimal(2), "buy", at, at, number)
        for number, at in ((number, START + number * 1_000_000) for number in range(2_500))
    ]
    native, _, by_python = natively_and_by_python(trades, ["1s", "2s", "1m"], [])
    assert len(native.rows[0].row.windows) == 2_500
    assert not by_python


def test_a_sum_that_only_a_coarser_window_makes_too_great_is_left_to_python_and_exact() -> None:
    greatest = Decimal(10**18 - 1)
    trades = [
        Trade("binance:A", str(number + 1), greatest, greatest, "buy", at, at, number)
        for number, at in ((number, START + (number // 300) * 1_000_000) for number in range(600))
    ]
    native, _, by_python = natively_and_by_python(trades, ["1s", "1m"], [])
    assert by_python == {"overflow": 600}
    (window,) = native.rows[1].row.windows.values()
    assert window.fold.quote_volume == 600 * (10**18 - 1) ** 2


def test_rows_that_have_seen_different_stretches_are_left_to_python() -> None:
    timeframes = (RULES.finest, Timeframe.parse("1h"))
    aggregator = SymbolAggregator(timeframes, RULES)
    aggregator.on_trades(some(1), [0])
    aggregator.rows[1].row.applied_offset = 1
    outcomes, by_python = fold(some(3), {"binance:A": aggregator}, RULES)
    assert outcomes["binance:A"].counted == 2
    assert by_python == {"rows_apart": 3}


def test_no_verdict_is_without_a_name() -> None:
    assert [verdict.value for verdict in Verdict] == list(range(9))
