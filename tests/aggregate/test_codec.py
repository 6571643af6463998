"""Rows in the changelogs: whatever is in one comes back exactly, from what is written now and from JSON of before."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts import Candle
from ashi.contracts.candle import MAX_EPOCH
from ashi.contracts.errors import StateError
from ashi.runtime.kafka.consuming.records import keep_newest
from ashi_aggregate.core.codec import Marker, decode_row, encode, rank_of, read_rank, read_stored
from ashi_aggregate.core.fold import Fold
from ashi_aggregate.core.trade_ids import WindowIds
from ashi_aggregate.core.window_state import StateRow, Window

TIMES = st.integers(0, 2**53)
OFFSETS = st.integers(-1, 2**40 - 1)
EPOCHS = st.integers(0, MAX_EPOCH)
SUMS = st.decimals(min_value=0, allow_nan=False, allow_infinity=False) | st.integers(0, 10**152).map(
    lambda digits: Decimal((0, tuple(map(int, str(digits))), -76))
)
RANKS = st.tuples(TIMES, st.integers(0, 2**63 - 1), st.text(max_size=20), SUMS)
FOLDS = st.builds(Fold, TIMES, RANKS, RANKS, SUMS, SUMS, SUMS, SUMS, st.integers(1, 2**40), SUMS, SUMS, OFFSETS)
NUMBERS = st.lists(st.integers(0, 2**62) | st.integers(0, 10**128 - 1), unique=True, max_size=8)
INTERVALS = NUMBERS.map(lambda ids: sorted(ids)[: len(ids) // 2 * 2])
IDS = st.builds(WindowIds, INTERVALS, st.sets(st.text(max_size=9), max_size=3))
SYMBOLS = st.sampled_from(["binance:BTCUSDT", "bitflyer:FX_BTC_JPY", "é:ü"])


@st.composite
def rows(draw: st.DrawFn) -> StateRow:
    symbol = draw(SYMBOLS)
    windows = draw(st.lists(st.builds(Window, FOLDS, OFFSETS), max_size=2, unique_by=lambda each: each.fold.open_time))
    texts = st.none() | st.text(max_size=20)
    candle = st.builds(
        Candle, st.just(symbol), st.sampled_from(["1m", "1h"]), TIMES, TIMES, SUMS, SUMS, SUMS, SUMS, SUMS, SUMS,
        st.integers(0, 2**40), SUMS, SUMS, texts, texts, st.integers(0, 2**53 - 1),
    )  # fmt: skip
    return StateRow(
        symbol,
        draw(EPOCHS),
        draw(OFFSETS),
        *draw(st.tuples(TIMES, TIMES, TIMES, TIMES, TIMES)),
        windows={window.fold.open_time: window for window in windows},
        ids=draw(
            st.dictionaries(
                TIMES, st.builds(WindowIds, INTERVALS, st.sets(st.text(max_size=9), max_size=3)), max_size=3
            )
        ),
        dropped=draw(st.none() | candle),
    )


def json_of(row: StateRow) -> bytes:
    """A row as version 0.1.0 wrote it."""

    def named(fold: Fold) -> dict[str, Any]:
        return {name: getattr(fold, name) for name in Fold.__struct_fields__ if name != "symbol"}

    def differences(ids: WindowIds) -> dict[str, Any]:
        numbers = [after - before for before, after in zip([0, *ids.numbers], ids.numbers, strict=False)]
        return {"numbers": numbers} | ({"texts": list(ids.texts)} if ids.texts else {})

    return msgspec.json.encode(
        {
            "symbol": row.symbol,
            "epoch": row.epoch,
            "position": row.applied_offset,
            "data_clock": row.stream_time,
            "appended_at": row.appended_at,
            "floor": row.dropped_until,
            "edge": row.complete_from,
            "closed_until": row.closed_until,
            "windows": {at: {"fold": named(each.fold), "emitted": each.emitted} for at, each in row.windows.items()},
            "ids": {at: differences(ids) for at, ids in row.ids.items()},
            "dropped": row.dropped,
            "format": 1,
        }
    )


@given(row=rows(), writer=st.sampled_from([encode, json_of]))
def test_any_row_comes_back_to_the_last_digit_from_what_is_written_now_and_from_json(row, writer):
    value = writer(row)
    found = decode_row(value)
    assert found == row
    assert repr(found.windows) == repr(row.windows), "1.0 is not 1.00: equal is not enough"
    assert repr(found.dropped) == repr(row.dropped)
    assert read_rank(value) == (row.epoch, row.applied_offset)
    stored = read_stored(value)
    assert (stored.value, stored.applied_offset) == (value, row.applied_offset)
    head = stored.head
    assert {name: getattr(head, name) for name in head.__struct_fields__} == {
        name: getattr(row, name) for name in head.__struct_fields__
    }


@given(
    writes=st.lists(st.tuples(EPOCHS, OFFSETS, st.sampled_from(["row", "json", "marker", "gone"])), max_size=12),
)
def test_of_the_writes_of_a_row_the_newest_counts_whatever_their_order_and_however_they_are_written(writes):
    kept: dict[bytes, bytes] = {}
    newest: tuple[int, int] | None = None
    for epoch, offset, what in writes:
        row = StateRow("a:B", epoch, offset)
        value = {
            "row": encode(row),
            "json": json_of(row),
            "marker": encode(Marker(offset, epoch=epoch)),
            "gone": None,
        }[what]
        keep_newest(kept, [(b"k", value)], rank_of)
        newest = None if value is None else max(newest or (epoch, offset), (epoch, offset))
        assert (newest is None) == (not kept)
        assert newest is None or read_rank(kept[b"k"]) == newest


def test_of_equal_writes_the_later_counts():
    first, second = (encode(StateRow("a:B", 1, 7, stream_time=time)) for time in (1, 2))
    for order in ([first, second], [second, first]):
        kept: dict[bytes, bytes] = {}
        for value in order:
            keep_newest(kept, [(b"k", value)], rank_of)
        assert kept[b"k"] == order[-1]


def test_a_row_takes_less_than_half_of_what_it_took_as_json():
    rnd = random.Random(1)

    def amount() -> Decimal:
        return Decimal(rnd.randrange(10**9)).scaleb(-5)

    def fold(start: int) -> Fold:
        first, last = ((start + at, 4086 + at, str(4086 + at), amount()) for at in (0, 59))
        return Fold(start, first, last, amount(), amount(), amount(), amount(), 60, amount(), amount(), 18_036_544)

    start = 1_764_003_780_000_000
    folds = [fold(start + minute * 60_000_000) for minute in range(3)]
    row = StateRow(
        "binance:BTCUSDT",
        1,
        18_036_602,
        start,
        start,
        start,
        0,
        start,
        {each.open_time: Window(each) for each in folds},
    )
    assert len(encode(row)) * 2 < len(json_of(row))


def test_what_is_no_row_or_of_a_later_format_is_refused_with_what_to_do():
    row = encode(StateRow("a:B", 1, 2))
    later = json_of(StateRow("a:B")).replace(b'"format":1', b'"format":99')
    with pytest.raises(StateError, match=r"row of a:B has format 99.*start the version that wrote it"):
        decode_row(later)
    for value, what in (
        (b"{", r"no position|cannot be read"),
        (b'{"epoch":1}', r"no position|cannot be read"),
        (b"", "cut off"),
        (b"[]", "cut off"),
        (row[:9], "cut off"),
        (b"\x03" + row[1:], "format 3, this version of Ashi knows up to 2, so start the version that wrote it"),
    ):
        for read in (decode_row, read_stored, rank_of):
            with pytest.raises(StateError, match=what):
                read(value)
    for cut in range(9, len(row)):
        with pytest.raises(StateError, match="cannot be read"):
            decode_row(row[:cut])
