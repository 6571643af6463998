"""What must be true in the end: the candles stored, and where each published record has gone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ashi.contracts import Trade, decode_candle, decode_trade
from ashi.contracts.candle import EPOCH_BITS
from ashi.contracts.topics import CANDLES, CANDLES_DEAD, TRADES, TRADES_DEAD, TRADES_LATE
from ashi.runtime.kafka.dead_letters import trade_place
from ashi.runtime.kafka.records import read_topic
from ashi.runtime.settings import Settings
from ashi_sinks.registry import open_reader
from chaos.market import LATENESS_US
from chaos.publisher import KIND_HEADER
from chaos.whole import read_whole
from oracle import Key, candles_of, closed, stored, timely, unique

SHOWN = 5
MOST_SERIES = 500
"""Of a store with more, all rows are read at once."""

Place = tuple[int, int]
"""Partition and offset of a record of `trades`."""


@dataclass(frozen=True)
class Era:
    """The time of one epoch: its settings, and how far its workers had come when it ended.

    Up to `durable` (the committed offsets) everything has surely been aggregated, beyond `end` surely nothing.
    """

    timeframes: list[str]
    horizon_us: int
    durable: dict[int, int]
    end: dict[int, int]


class Record(NamedTuple):
    """A record of `trades`; `trade` is None when it was published as one that is no trade of its place."""

    place: Place
    value: bytes
    trade: Trade | None


async def read_log(settings: Settings) -> list[Record]:
    """Topic `trades` as it is, in order within each partition: the truth that all else is held against."""
    records = []
    async for record in read_topic(settings, TRADES):
        sound = dict(record.headers)[KIND_HEADER] == b"sound"
        trade = decode_trade(record.value) if sound else None
        records.append(Record((record.partition, record.offset), record.value or b"", trade))
    return sorted(records, key=lambda record: record.place)


async def read_sources(settings: Settings, topic: str) -> dict[Place, bytes]:
    """Which records of `trades` the letters in a topic are about, with the values that they quote."""
    found: dict[Place, bytes] = {}
    async for letter in read_topic(settings, topic):
        place = trade_place(letter.headers)
        assert place is not None, letter
        assert dict(letter.headers)["ashi.source"].decode() == f"{TRADES}/{place[0]}/{place[1]}", letter
        found[place] = letter.value or b""
    return found


def expected_rows(records: Sequence[Record], timeframes: list[str], horizon_us: int, epoch: int) -> dict[Key, Any]:
    """Each candle that must be stored, with every field, by the oracle alone.

    Its version too: the place of the last trade folded into it, for a flat candle that of the candle it carries on.
    """
    trades = [record.trade for record in records if record.trade is not None]
    counted = unique(timely(trades, timeframes[0], horizon_us))
    expected = closed(candles_of(counted, timeframes), trades, LATENESS_US)
    place_of = {id(record.trade): record.place for record in records}
    last: dict[Key, int] = defaultdict(lambda: -1)
    lengths = {timeframe: _length_us(timeframe) for timeframe in timeframes}
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


def _length_us(timeframe: str) -> int:
    return int(timeframe[:-1]) * {"s": 1, "m": 60, "h": 3600}[timeframe[-1]] * 1_000_000


async def read_rows(url: str) -> dict[Key, Any]:
    """Every candle in a store, by its key, with all other fields. Raises AssertionError where one is there twice."""
    rows: dict[Key, Any] = {}
    read = 0
    async with open_reader(url) as reader:
        spans = await reader.spans()
        whole = await read_whole(url) if len(spans) > MOST_SERIES else None
        for candle in whole or ():
            key, row = _row(candle)
            rows[key] = row
            read += 1
        for symbol, timeframe, _, _ in spans if whole is None else ():
            async for candle in reader.read(symbol, timeframe):
                key, row = _row(candle)
                rows[key] = row
                read += 1
        counted = await reader.count()
    assert read == len(rows) == counted, f"{read} rows were read, of {len(rows)} candles; the store counts {counted}"
    return rows


def _row(candle: Any) -> tuple[Key, dict[str, Any]]:
    """The key of a candle and its other fields."""
    fields = {name: getattr(candle, name) for name in candle.__struct_fields__}
    return (fields.pop("symbol"), fields.pop("timeframe"), fields.pop("open_time")), fields


def _late(records: Iterable[Record], finest: str, horizon_us: int) -> set[Place]:
    """The places of trades that come too late to count."""
    sound = [record for record in records if record.trade is not None]
    counted = {id(trade) for trade in timely([record.trade for record in sound], finest, horizon_us)}
    return {record.place for record in sound if id(record.trade) not in counted}


def _before(places: set[Place], ends: dict[int, int]) -> set[Place]:
    return {(partition, offset) for partition, offset in places if offset < ends.get(partition, 0)}


class Verdict(NamedTuple):
    """What is wrong (nothing, it is hoped), and the numbers of the run."""

    wrong: list[str]
    numbers: dict[str, int]


async def classify_error(
    settings: Settings,
    stores: Mapping[str, str],
    eras: Sequence[Era],
    acknowledged: dict[Place, int],
    evidence: Path,
) -> Verdict:
    """Hold what is stored and what was set aside against the log.

    `stores`: their URLs by name. `eras`: all epochs, the last one still lasts. `evidence`: the folder for what explains
    a difference.

    A new epoch builds its state anew from the head of the log, so the last settings alone say which candles there
    must be. That holds exactly because each reconfiguration only lengthens the horizon and adds timeframes: whatever
    window had a candle before has one after it, and none is left over that nothing replaces.

    Letters are never taken back. So `trades.late` must hold what is late by the last settings, and what was late in
    an earlier epoch as far as that surely came; it may hold what that epoch perhaps still saw, and nothing else.
    """
    now, epoch = eras[-1], len(eras) - 1
    finest = now.timeframes[0]
    records = await read_log(settings)
    log = {record.place: record for record in records}
    wrong: list[str] = []

    lost = [place for place, digest in acknowledged.items() if place not in log or hash(log[place].value) != digest]
    if lost:
        wrong.append(f"Kafka acknowledged {len(lost)} records that are not in the log, such as {lost[:SHOWN]}")

    late = _late(records, finest, now.horizon_us)
    must_late, may_late = set(late), set(late)
    for era in eras[:-1]:
        late_then = _late(records, finest, era.horizon_us)
        must_late |= _before(late_then, era.durable)
        may_late |= _before(late_then, era.end)
    dead = {record.place for record in records if record.trade is None}
    for topic, must, may in ((TRADES_LATE, must_late, may_late), (TRADES_DEAD, dead, dead)):
        letters = await read_sources(settings, topic)
        for what, places in (("lacks", must - set(letters)), ("must not have", set(letters) - may)):
            if places:
                wrong.append(f"{topic} {what} {len(places)} records, such as {sorted(places)[:SHOWN]}")
        changed = [place for place, value in letters.items() if place in log and log[place].value != value]
        if changed:
            wrong.append(f"{topic} quotes {len(changed)} records wrongly, such as {changed[:SHOWN]}")

    expected = expected_rows(records, now.timeframes, now.horizon_us, epoch)
    candles = [(record, decode_candle(record.value)) async for record in read_topic(settings, CANDLES)]
    wrong_rows, held = await _hold(stores, expected, records, candles, evidence)
    wrong += wrong_rows
    try:
        in_topic = stored([candle for _, candle in candles])
    except AssertionError as error:
        wrong.append(str(error))
    else:
        without = {key: {name: row[name] for name in row if name != "version"} for key, row in expected.items()}
        if in_topic != without:
            wrong.append("topic candles, read as a reader must, does not give the oracle's candles")
    if refused := [record async for record in read_topic(settings, CANDLES_DEAD)]:
        wrong.append(f"candles.dead has {len(refused)} records, such as {refused[0]}")

    sound = [record.trade for record in records if record.trade is not None]
    counted = unique(timely(sound, finest, now.horizon_us))
    numbers = {
        "records": len(records),
        "counted": len(counted),
        "duplicates": len(sound) - len(late) - len(counted),
        "late": len(late),
        "dead": len(dead),
        "candles sent": len(candles),
        **{f"candles in {name}": rows for name, rows in held.items()},
        "flat": sum(not row["trade_count"] for row in expected.values()),
    }
    return Verdict(wrong, numbers)


async def compare_with_topic(settings: Settings, stores: Mapping[str, str], evidence: Path) -> list[str]:
    """What the stores, whose sinks have read all of topic `candles`, hold otherwise than the topic itself.

    To be asked before a new epoch: it sends all candles again, so that what a store has lost by then is mended.
    """
    candles = [(record, decode_candle(record.value)) async for record in read_topic(settings, CANDLES)]
    newest: dict[Key, dict[str, Any]] = {}
    for _, candle in candles:
        key, row = _row(candle)
        if key not in newest or row["version"] > newest[key]["version"]:
            newest[key] = row
    wrong, _ = await _hold(stores, newest, [], candles, evidence)
    return wrong


async def _hold(
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
        differences = _differences(expected, found, records, candles, evidence / f"differences-{name}.txt")
        wrong += [f"{name}: {difference}" for difference in differences]
    return wrong, held


def _differences(
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
    end = start + _length_us(timeframe)
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
