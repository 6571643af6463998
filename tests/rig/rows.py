"""The candles that a store must hold, by the oracle alone, and how what it holds differs from them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ashi.contracts import Trade
from ashi.contracts.candle import EPOCH_BITS
from ashi_sinks.registry import open_reader
from oracle import Key, candles_of, closed, seconds, timely, unique
from rig.all_rows import read_whole

SHOWN = 5
MOST_SERIES = 500
"""Of a store with more, all rows are read at once."""

Place = tuple[int, int]
"""Partition and offset of a record of `trades`."""


class Record(NamedTuple):
    """A record of `trades`; `trade` is None when it was published as one that is no trade of its place."""

    place: Place
    value: bytes
    trade: Trade | None


def expected_rows(
    records: Sequence[Record], timeframes: list[str], horizon_us: int, epoch: int, lateness_us: int
) -> dict[Key, Any]:
    """Each candle that must be stored, with every field, by the oracle alone.

    Its version too: the place of the last trade folded into it, for a flat candle that of the candle it carries on.
    """
    trades = [record.trade for record in records if record.trade is not None]
    counted = unique(timely(trades, timeframes[0], horizon_us))
    expected = closed(candles_of(counted, timeframes), trades, lateness_us)
    place_of = {id(record.trade): record.place for record in records}
    last: dict[Key, int] = defaultdict(lambda: -1)
    lengths = {timeframe: seconds(timeframe) * 1_000_000 for timeframe in timeframes}
    for trade in counted:
        offset = place_of[id(trade)][1]
        for timeframe, length in lengths.items():
            key = (trade.symbol, timeframe, trade.traded_at // length * length)
            last[key] = max(last[key], offset)
    version = -1
    rows = {}
    for key in sorted(expected):
        if expected[key]["trade_count"]:
            version = (epoch << EPOCH_BITS) + last[key]
        rows[key] = {**expected[key], "version": version}
    return rows


async def read_rows(url: str, *, is_filled: bool = False) -> dict[Key, Any]:
    """Every candle in a store, by its key, with all other fields. Raises AssertionError where one is there twice.

    `is_filled`: sinks write meanwhile, so what came after it was begun may be in it or not.
    """
    rows: dict[Key, Any] = {}
    read = 0
    async with open_reader(url) as reader:
        before = await reader.count()
        spans = await reader.spans()
        whole = await read_whole(url) if len(spans) > MOST_SERIES else None
        for candle in whole or ():
            key, row = row_of(candle)
            rows[key] = row
            read += 1
        for symbol, timeframe, _, _ in spans if whole is None else ():
            async for candle in reader.read(symbol, timeframe):
                key, row = row_of(candle)
                rows[key] = row
                read += 1
        counted = await reader.count()
    right = before <= read <= counted if is_filled else read == counted
    assert read == len(rows), f"{read} rows were read, of {len(rows)} candles"
    assert right, f"{read} rows were read; the store counts {counted}, and {before} before"
    return rows


def row_of(candle: Any) -> tuple[Key, dict[str, Any]]:
    """The key of a candle and its other fields."""
    fields = {name: getattr(candle, name) for name in candle.__struct_fields__}
    return (fields.pop("symbol"), fields.pop("timeframe"), fields.pop("open_time")), fields


def late_places(records: Iterable[Record], finest: str, horizon_us: int) -> set[Place]:
    """The places of trades that come too late to count."""
    sound = [record for record in records if record.trade is not None]
    counted = {id(trade) for trade in timely([record.trade for record in sound], finest, horizon_us)}
    return {record.place for record in sound if id(record.trade) not in counted}


async def hold(
    stores: Mapping[str, str],
    expected: dict[Key, Any],
    records: Sequence[Record],
    candles: Sequence[tuple[Any, Any]],
    evidence: Path,
) -> tuple[list[str], dict[str, int]]:
    """Hold the rows of each store against those expected: what is wrong, and how many rows each has."""
    wrong, held = [], {}
    for name, url in stores.items():
        try:
            found = await read_rows(url)
        except AssertionError as error:
            wrong.append(f"{name}: {error}")
            continue
        held[name] = len(found)
        unlike = differences(expected, found, records, candles, evidence / f"differences-{name}.txt")
        wrong += [f"{name}: {sentence}" for sentence in unlike]
    return wrong, held


def differences(
    expected: dict[Key, Any],
    found: dict[Key, Any],
    records: Sequence[Record],
    candles: Sequence[tuple[Any, Any]],
    evidence: Path,
) -> list[str]:
    """A sentence for each kind of difference; the evidence for all of them goes to a file."""
    kinds = {
        "are missing": sorted(expected.keys() - found.keys()),
        "are too many": sorted(found.keys() - expected.keys()),
        "differ": sorted(key for key in expected.keys() & found.keys() if expected[key] != found[key]),
    }
    wrong = [f"{len(keys)} candles {kind}, such as {keys[:SHOWN]}" for kind, keys in kinds.items() if keys]
    if not wrong:
        return []
    with evidence.open("w") as file:
        for kind, keys in kinds.items():
            per_series = Counter((symbol, timeframe) for symbol, timeframe, _ in keys)
            file.write(f"== {len(keys)} {kind}: {dict(per_series)}\n")
            for key in keys[:20]:
                _write_evidence(file, key, expected.get(key), found.get(key), records, candles)
    return [*wrong, f"evidence: {evidence}"]


def _write_evidence(file: Any, key: Key, expected: Any, found: Any, records: Any, candles: Any) -> None:
    symbol, timeframe, start = key
    end = start + seconds(timeframe) * 1_000_000
    file.write(f"\n-- {key}\n   expected {expected}\n   stored   {found}\n")
    for record, candle in candles:
        if (candle.symbol, candle.timeframe, candle.open_time) == key:
            file.write(f"   candles/{record.partition}/{record.offset} at {record.timestamp}: {candle}\n")
    shown = 0
    for record in records:
        trade = record.trade
        if trade is not None and trade.symbol == symbol and start <= trade.traded_at < end and shown < 400:
            shown += 1
            file.write(f"   trades/{record.place[0]}/{record.place[1]}: {trade}\n")
