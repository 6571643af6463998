"""What the native library adds up of a lake is what Python makes of the same records, or is left to Python."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ashi.contracts import Timeframe, Trade
from ashi.runtime.settings import Settings
from ashi_aggregate.epoch import Epoch
from ashi_aggregate.native.rows import COLUMNS, TradeRows, UnknownColumnsError
from ashi_audit import native_lake, rebuild
from ashi_audit.native_lake import NativeAddition, native_addition
from ashi_audit.part_recount import PartRecount
from ashi_audit.rebuild import RebuildOptions
from ashi_audit.recount import SeriesRange
from ashi_audit.rules import rules_of_epoch
from ashi_audit.sources.base import SourcePart
from kafka_topics.fetched_batches import kernel
from samples.hypothesis_strategies import START

pytest.importorskip("deltalake")

from ashi_audit.sources import lake as lake_source
from ashi_sinks.lake.driver import arrow
from ashi_sinks.lake.location import lake_of
from ashi_sinks.lake.tables import TRADES, StoredTrade, trade_columns
from ashi_sinks.lake.trades import LakeTrades

SECOND = 1_000_000
SYMBOL = "binance:BTCUSDT"
TIMEFRAMES = [["1m", "5m", "1h"], ["1s", "1m"], ["15m", "1h", "1d"], ["45s", "3m"]]
Letters = dict[int, dict[int, tuple[bytes, Trade]]]


def amount(rng: random.Random, odd: float) -> Decimal:
    if rng.random() < odd:
        return Decimal(rng.randint(0, 10**38 - 1)).scaleb(-rng.randint(0, 38))
    return Decimal(rng.randint(0, 10 ** rng.randint(1, 9))) / 10 ** rng.randint(0, 8)


def trade_id(rng: random.Random, kind: str, number: int) -> str:
    return {
        "ascending": str(number + 1),
        "scattered": str(number * 3 + 1),
        "descending": str(100_000 - number),
        "texts": f"{number:x}-z",
        "long": f"{number}{'7' * 100}",
        "mixed": rng.choice([str(number), f"0{number}", f"x{number}", str(10**20 + number)]),
    }[kind]


def make_log(rng: random.Random, finest_us: int) -> list[StoredTrade]:
    """Records of a symbol as a log may have them: disorder, repairs, copies stamped apart, ids that come again."""
    kind = rng.choice(["ascending", "ascending", "scattered", "descending", "texts", "long", "mixed"])
    odd, partitions = rng.choice([0, 0, 0, 0.01]), rng.choice([1, 1, 1, 1, 2])
    step = rng.choice([SECOND // 3, 7 * SECOND, finest_us // 3, finest_us])
    trades: list[Trade] = []
    for number in range(rng.randint(1, 150)):
        if trades and rng.random() < 0.1:
            # A copy; of several that are copies of one, no two are stamped further apart than they may be.
            before = rng.choice(trades)
            at = before.traded_at // SECOND * SECOND + rng.randint(0, SECOND - 1)
            trades.append(
                Trade(SYMBOL, before.trade_id, before.price, before.size, before.side, at, at + 5, before.sequence)
            )
            continue
        at = START + number * step - rng.choice([0, 0, rng.randint(0, SECOND), rng.randint(0, 40 * step)])
        if rng.random() < 0.1:
            at = at // finest_us * finest_us - rng.choice([0, 1])
        price, side = amount(rng, odd), rng.choice(["buy", "sell", None])
        sequence = rng.choice([number, at // finest_us])
        name = trade_id(rng, kind, number)
        trades.append(Trade(SYMBOL, name, price, amount(rng, odd), side, at, at + rng.randint(-9, 9), sequence))  # type: ignore[arg-type]
    first = rng.choice([0, 10**12])
    return [
        StoredTrade(0 if partitions == 1 else rng.randint(0, 1), first + place * rng.choice([1, 1, 3]), trade)
        for place, trade in enumerate(trades)
    ]


def unique_places(rows: Sequence[StoredTrade]) -> list[StoredTrade]:
    """Without those whose place in the log is taken."""
    return list({(row.partition, row.offset): row for row in rows}.values())


class LakeInMemory(LakeTrades):
    """The records of a lake without one, in files of a few."""

    def __init__(self, rows: Sequence[StoredTrade], rng: random.Random) -> None:
        super().__init__(lake_of("lake:////nowhere"))
        self._rows = rows
        cuts = sorted({0, len(rows), *(rng.randint(0, len(rows)) for _ in range(3))})
        self._files = [rows[begin:end] for begin, end in pairwise(cuts)]
        rng.shuffle(self._files)

    async def counts(self, _: Any, __: str, start: int, end: int, cell_us: int) -> AsyncIterator[tuple[int, int]]:
        cells = Counter(row.trade.traded_at // cell_us for row in self._rows if start <= row.trade.traded_at < end)
        for cell in sorted(cells):
            yield cell * cell_us, cells[cell]

    async def read(self, _: str, start: int, end: int, __: Any = None) -> AsyncIterator[StoredTrade]:
        for row in sorted(self._rows, key=lambda row: (row.partition, row.offset)):
            if start <= row.trade.traded_at < end:
                yield row

    def columns(self, _: Any, __: str, start: int, end: int, *, names: Sequence[str]) -> Iterator[Any]:
        for file in self._files:
            within = [row for row in file if start <= row.trade.traded_at < end]
            if within:
                yield columns_of(within, names)


def columns_of(rows: Sequence[StoredTrade], names: Sequence[str]) -> arrow.RecordBatch:
    """As a query of the lake gives them."""
    table = TRADES.rows(trade_columns(rows))
    kinds = {"text": arrow.DataType.string_view(), "time": arrow.DataType.int64(), "integer": arrow.DataType.int64()}
    arrays: dict[str, Any] = {name: table[name].combine_chunks().cast(kinds[TRADES.kinds[name]]) for name in names}
    return arrow.RecordBatch(arrays)


def recounted(
    table: LakeTrades,
    timeframes: Sequence[str],
    addition: NativeAddition | None,
    letters: Letters,
    unread: dict[int, range],
    monkeypatch: pytest.MonkeyPatch,
    snapshot: Any = None,
) -> dict[Any, Any]:
    """What a rebuild gets to know of each series: windows, their late trades, and how far they are settled."""
    epoch = Epoch(0, list(timeframes), 2 * SECOND, 120 * SECOND, 1_440)
    source = lake_source.LakeSource(
        Settings.from_environment({}),
        "lake:////nowhere",
        epoch=epoch,
        partitions=2,
        symbols=[SYMBOL],
        start=START - 10_000 * SECOND,
        end=START + 9_000_000 * SECOND,
        on_note=lambda _: None,
        addition=addition,
    )
    monkeypatch.setattr(source, "_table", table)
    monkeypatch.setattr(source, "_unread", unread)
    recount = PartRecount(
        rules_of_epoch(epoch),
        [Timeframe.parse(name) for name in timeframes],
        start=START - 9_000 * SECOND,
        end=START + 9_000_000 * SECOND,
    )

    async def ranges() -> list[tuple[SeriesRange, int]]:
        part = SourcePart(0, {}, 0, source._batches(snapshot, SYMBOL, letters))
        return [each async for each in recount.ranges(part)]

    series: dict[Any, Any] = {"seen": recount.seen, "from": recount.whole_from}
    for windows, clock in asyncio.run(ranges()):
        found = series.setdefault((str(windows.timeframe), windows.settled), [windows.begin, 0, clock, []])
        found[1:3] = windows.until, clock
        for each in windows.windows:
            late = sorted(each.late, key=lambda late: late.offset)
            found[3].append((each.open_time, repr(each.in_time), repr(late)))  # as text: decimals are as long as well
    return series


@given(st.integers(0, 2**32), st.sampled_from(TIMEFRAMES))
@settings(max_examples=80, deadline=None)
def test_it_is_what_python_makes_of_the_same_records(seed: int, timeframes: list[str]) -> None:
    rng = random.Random(seed)
    finest = Timeframe.parse(timeframes[0])
    rows = unique_places(make_log(rng, finest.length_us))
    late = [row for row in rows if rng.random() < rng.choice([0, 0.2])]
    letters: Letters = {}
    for row in late:
        # A letter of a topic that was made anew since is of another trade.
        other = Trade(SYMBOL, "other", Decimal(1), Decimal(1), None, START, START, 0)
        letters.setdefault(row.partition, {})[row.offset] = (b"", row.trade if rng.random() < 0.8 else other)
    offsets = sorted(row.offset for row in rows)
    bounds = sorted(rng.choices(offsets, k=2))
    unread = {0: range(*bounds)} if rng.random() < 0.3 else {}
    addition = native_addition(finest)
    assert isinstance(addition, NativeAddition)
    with pytest.MonkeyPatch.context() as monkeypatch:
        table = LakeInMemory(rows, rng)
        monkeypatch.setattr(lake_source, "ADDED_UP_AT_ONCE", rng.choice([20, 400_000]))
        monkeypatch.setattr("ashi_sinks.lake.trades.TRADES_AT_ONCE", rng.choice([20, 100_000]))
        by_python = recounted(table, timeframes, None, letters, unread, monkeypatch)
        natively = recounted(table, timeframes, addition, letters, unread, monkeypatch)
    assert natively == by_python
    if len({row.partition for row in rows}) == 1 and all(
        len(f"{value:f}") <= 18 for row in rows for value in (row.trade.price, row.trade.size)
    ):
        assert not addition.left, "what Ashi writes is not left to Python"


@pytest.mark.parametrize(
    ("finest", "cell_s"), [("1s", 600), ("3m", 1_800), ("45s", 1_800), ("1h", 3_600), ("1d", 86_400)]
)
def test_a_piece_is_no_longer_than_whole_windows_ask_for(finest: str, cell_s: int) -> None:
    addition = native_addition(Timeframe.parse(finest))
    assert isinstance(addition, NativeAddition)
    assert addition.cell_us == cell_s * SECOND


def test_a_lake_of_files_is_read_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    rows = [
        StoredTrade(0, place, Trade(SYMBOL, str(place), amount(rng, 0), amount(rng, 0), side, at, at, place))  # type: ignore[arg-type]
        for place in range(3_000)
        for at in [START + place * SECOND]
        for side in [rng.choice(["buy", "sell", None])]
    ]
    table = LakeTrades(lake_of(f"lake:///{tmp_path}/lake"))

    async def fill() -> None:
        await table.open_or_make()
        for begin in range(0, len(rows), 1_000):
            await table.write(rows[begin : begin + 1_000])

    asyncio.run(fill())
    addition = native_addition(Timeframe.parse("1m"))
    assert isinstance(addition, NativeAddition)
    snapshot = asyncio.run(table.snapshot())
    monkeypatch.setattr(lake_source, "ADDED_UP_AT_ONCE", 700)
    by_python, natively = (
        recounted(table, ["1m", "1h"], each, {}, {}, monkeypatch, snapshot) for each in (None, addition)
    )
    assert natively == by_python
    assert (addition.counted, addition.left) == (3_000, 0)


def of_another_kind(batch: arrow.RecordBatch) -> arrow.RecordBatch:
    return arrow.RecordBatch(
        {name: batch[name].cast(arrow.DataType.string()) if name == "size" else batch[name] for name in COLUMNS}
    )


def with_a_column_less(batch: arrow.RecordBatch) -> arrow.RecordBatch:
    return arrow.RecordBatch({name: batch[name] for name in COLUMNS[:-1]})


def with_a_null(batch: arrow.RecordBatch) -> arrow.RecordBatch:
    null = arrow.Array([None] * batch.num_rows, arrow.DataType.string_view())
    return arrow.RecordBatch({name: null if name == "price" else batch[name] for name in COLUMNS})


@pytest.mark.parametrize("change", [of_another_kind, with_a_column_less, with_a_null])
def test_columns_of_another_kind_are_refused_and_the_next_ones_are_read(change: Any) -> None:
    trade = Trade(SYMBOL, "1", Decimal(5), Decimal(1), None, START, START, 1)
    batch = columns_of([StoredTrade(0, 0, trade)], COLUMNS)
    rows = TradeRows(kernel())
    rows.begin(1)
    with pytest.raises(UnknownColumnsError):
        rows.add(change(batch))
    rows.begin(1)
    rows.add(batch)
    assert len(rows) == 1


def test_without_the_library_it_is_said_that_python_does_it(monkeypatch, capsys):
    monkeypatch.setattr(native_lake, "load_kernel", lambda: None)
    options = RebuildOptions(START, START + 1, lake="lake:////nowhere")
    assert rebuild._addition(Settings.from_environment({}), options, Timeframe.parse("1m")) is None
    assert "note: there is no native fold of this version for this machine: Python adds" in capsys.readouterr().err


def test_whoever_wants_none_is_told_nothing(capsys):
    wanted = Settings.from_environment({"ASHI_NATIVE_FOLD": "off"})
    options = RebuildOptions(START, START + 1, lake="lake:////nowhere")
    assert rebuild._addition(wanted, options, Timeframe.parse("1m")) is None
    assert rebuild._addition(Settings.from_environment({}), RebuildOptions(START, START + 1), Timeframe(1)) is None
    assert capsys.readouterr().err == ""
