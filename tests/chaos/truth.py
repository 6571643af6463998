"""What must be true in the end: the candles stored, and where each published record has gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ashi.contracts import decode_candle, decode_trade
from ashi.contracts.topics import CANDLES, CANDLES_DEAD, TRADES, TRADES_DEAD, TRADES_LATE
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.kafka.producing.dead_letters import trade_place
from ashi.runtime.settings import Settings
from chaos.market import LATENESS_US
from chaos.publisher import KIND_HEADER
from oracle import Key, stored, timely, unique
from rig.rows import SHOWN, Place, Record, expected_rows, hold, late_places, row_of


@dataclass(frozen=True)
class Era:
    """The time of one epoch: its settings, and how far its workers had come when it ended.

    Up to `durable` (the committed offsets) everything has surely been aggregated, beyond `end` surely nothing.
    """

    timeframes: list[str]
    horizon_us: int
    durable: dict[int, int]
    end: dict[int, int]


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

    late = late_places(records, finest, now.horizon_us)
    must_late, may_late = set(late), set(late)
    for era in eras[:-1]:
        late_then = late_places(records, finest, era.horizon_us)
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

    expected = expected_rows(records, now.timeframes, now.horizon_us, epoch, LATENESS_US)
    candles = [(record, decode_candle(record.value)) async for record in read_topic(settings, CANDLES)]
    wrong_rows, held = await hold(stores, expected, records, candles, evidence)
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
        key, row = row_of(candle)
        if key not in newest or row["version"] > newest[key]["version"]:
            newest[key] = row
    wrong, _ = await hold(stores, newest, [], candles, evidence)
    return wrong
