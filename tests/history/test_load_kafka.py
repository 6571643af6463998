"""`ashi history load` on a real Kafka: killed, given again, and verified."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from loading import NAMES
from msgspec.structs import replace

from ashi.client import read_candles
from ashi.contracts import Candle, Trade, decode_candle, encode_trade
from ashi.contracts.feed import FeedGap, decode_feed_gap, encode_feed
from ashi.contracts.records import is_loaded
from ashi.contracts.topics import AGGREGATE_APP, CANDLES, FEED_GAPS, TRADES
from ashi.contracts.trade import EARLIEST_US
from ashi.runtime.kafka.cluster.offsets import end_offsets
from ashi.runtime.kafka.connections.clients import admin_client, make_producer
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings
from ashi_sinks.worker import sink_group
from oracle import candles_of, closed, stored
from samples.published_files import spot
from waits import until, until_read

pytestmark = pytest.mark.kafka

SYMBOL = "binance:ETHUSDT"
BEGIN = 1_700_049_600_000_000
"""Noon, µs."""
STEP_US = 20_000_000
LIVE = 2_160 + 1_860
"""The place of the first live trade: on the second day, at 10:20."""


def a_log() -> list[Trade]:
    """From noon to noon; nothing trades from 14:00 to 15:30."""
    rng = random.Random(20)
    log: list[Trade] = []
    for place in range(LIVE + 360):
        if not 360 <= place < 630:
            at, number = BEGIN + place * STEP_US + 1_000 * rng.randint(0, 9_999), 1_000 + len(log)
            price, size = Decimal(rng.randint(100_000, 200_000)) / 100, Decimal(rng.randint(1, 10**6)) / 10**5
            log.append(Trade(SYMBOL, str(number), price, size, rng.choice(["buy", "sell"]), at, at, number))
    return log


def record(path: Path, trades: list[Trade]) -> Path:
    """A recording of these trades."""
    lines = []
    for trade in trades:
        at_ms, is_sell = trade.traded_at // 1_000, str(trade.side == "sell").lower()
        lines.append(
            f'{trade.received_at * 1_000} {{"stream":"ethusdt@trade","data":{{"e":"trade","E":{at_ms},"s":"ETHUSDT",'
            f'"t":{trade.trade_id},"p":"{trade.price}","q":"{trade.size}","T":{at_ms},"m":{is_sell},"M":true}}}}\n'
        )
    path.write_text("".join(lines))
    return path


async def publish(settings: Settings, gap: FeedGap, trades: list[Trade]) -> None:
    producer = make_producer(settings)
    await producer.start()
    sent = [await producer.send(FEED_GAPS, key=SYMBOL.encode(), value=encode_feed(gap))]
    sent += [await producer.send(TRADES, key=SYMBOL.encode(), value=encode_trade(trade)) for trade in trades]
    await asyncio.gather(*sent)
    await producer.stop()


async def published(settings: Settings) -> list[Candle]:
    return [decode_candle(message.value) async for message in read_topic(settings, CANDLES)]


async def unrepaired(settings: Settings) -> list[tuple[int, int | None, bool]]:
    newest: dict[int, FeedGap] = {}
    async for message in read_topic(settings, FEED_GAPS):
        gap = decode_feed_gap(message.value)
        if gap.from_time not in newest or gap.updated_at > newest[gap.from_time].updated_at:
            newest[gap.from_time] = gap
    left = [gap for _, gap in sorted(newest.items()) if gap.state != "repaired"]
    return [(gap.from_time, gap.to_time, gap.final) for gap in left]


async def read_as_live(settings: Settings) -> list[Candle]:
    async with read_candles(settings, follow=False, loaded=False) as reader:
        return [candle async for candle in reader]


async def loaded(settings: Settings) -> int:
    return sum([is_loaded(message) async for message in read_topic(settings, CANDLES)])


def newest_minute(settings: Settings) -> int:
    return max(each.close_time for each in asyncio.run(published(settings)) if each.timeframe == "1m")


def at(trade: Trade, number: int, time: int) -> Trade:
    """The same at another time, µs, and with another number."""
    return replace(trade, trade_id=str(number), sequence=number, traded_at=time, received_at=time)


async def lose_all_but(settings: Settings, topic: str, kept: int) -> None:
    """As retention does it; so many records are left."""
    ends = await end_offsets(settings, topic)
    async with admin_client(settings) as client:
        await client.delete_records(
            {TopicPartition(topic, number): RecordsToDelete(end - kept) for number, end in ends.items() if end}
        )


def test_a_load_that_is_killed_is_given_again_and_better_files_fill_its_hole(
    kafka_settings, start_stage, ashi, tmp_path
):
    settings, log = kafka_settings, a_log()
    live_place = next(place for place, trade in enumerate(log) if trade.traded_at >= BEGIN + LIVE * STEP_US)
    live = log[live_place:]
    url = f"sqlite:///{tmp_path}/candles.db"
    start_stage("aggregate")
    start_stage("sink", "sqlite", ASHI_STORAGE=url)
    before_feed = FeedGap(SYMBOL, EARLIEST_US, live[0].traded_at - 1, "lost", 0, "not read before", BEGIN)
    asyncio.run(publish(settings, before_feed, live))

    # Files overlap each other and the live trades; one is missing at first.
    size = live_place // 5
    files = [
        record(tmp_path / f"{number}.txt", log[max(number * size - 5, 0) : (number + 1) * size]) for number in range(4)
    ]
    files.append(record(tmp_path / "last.txt", log[4 * size - 5 : live_place + 40]))
    files[1] = tmp_path / "ETHUSDT-trades-2023-11.csv"  # as the venue publishes them
    files[1].write_bytes(spot(log[size - 5 : 2 * size]))
    without = [*files[:2], *files[3:]]
    arguments = ("history", "load", "--symbol", SYMBOL, "--jobs", "1")
    until_read(settings, AGGREGATE_APP, TRADES)

    side_by_side = (*arguments[:-1], "2")
    stage = start_stage(*side_by_side, *map(str, without))
    until("a candle is loaded", lambda: asyncio.run(loaded(settings)) or stage.process.poll(), every_s=0.01)
    stage.kill()
    assert asyncio.run(loaded(settings)), stage.log.read_text()

    status, out, err = ashi(*side_by_side, *map(str, without))
    assert status == 0, out + err
    hole = (log[2 * size - 1].traded_at, log[3 * size - 5].traded_at + 1)
    expected = closed(candles_of(log, NAMES), log, 2_000_000)
    known = stored(asyncio.run(published(settings)))
    outside = {key for key, value in expected.items() if value["close_time"] <= hole[0] or key[2] >= hole[1]}
    assert {key: known.get(key) for key in outside} == {key: expected[key] for key in outside}
    assert not any(hole[0] <= key[2] and value["close_time"] <= hole[1] for key, value in known.items())
    before = (EARLIEST_US, log[0].traded_at + 1, False)
    assert asyncio.run(unrepaired(settings)) == [before, (*hole, True)]

    status, out, err = ashi(*arguments, *map(str, files))
    assert status == 0, out + err
    assert stored(asyncio.run(published(settings))) == expected
    assert asyncio.run(unrepaired(settings)) == [before]

    count = len(asyncio.run(published(settings)))
    status, out, err = ashi(*arguments, *map(str, reversed(files)))
    assert (status, out.splitlines()[-1].split(" of ")[0]) == (0, "0"), out + err
    assert len(asyncio.run(published(settings))) == count
    status, out, err = ashi(*arguments, *map(str, files[:3]))
    assert status == 2
    assert "name all files at once" in err

    as_live = asyncio.run(read_as_live(settings))
    assert {each.timeframe for each in as_live} == set(NAMES)
    assert all(each.close_time > live[0].traded_at for each in as_live)

    until_read(settings, sink_group("sqlite"), CANDLES)
    status, out, err = ashi("verify", url, "--trades")
    assert status == 0, out + err
    assert "it has trades of files as well" in out
    recordings = [word for file in files for word in ("--recording", f"binance={file}")]
    status, out, err = ashi("verify", url, "--trades", *recordings)
    assert status == 0, out + err
    assert " 0 differ, " in out

    # Months later the topic has lost its beginning, and files of an even earlier time are found.
    later = [at(log[place], 1_000 + len(log) + place, log[-1].traded_at + (place + 1) * STEP_US) for place in range(60)]
    asyncio.run(publish(settings, before_feed, later))
    until("live candles follow", lambda: newest_minute(settings) > later[50].traded_at)
    asyncio.run(lose_all_but(settings, CANDLES, 10))
    older = [at(log[place], 700 + place, log[0].traded_at - (300 - place) * STEP_US) for place in range(300)]
    files.append(record(tmp_path / "older.txt", older))
    status, out, err = ashi(*arguments, *map(str, files))
    assert status == 0, out + err
    assert "the first live candle in 1h is not in the topic any more: it is left as it is" in out
    expected = candles_of([*older, *log], NAMES)
    until_edge = {key for key, value in expected.items() if value["close_time"] <= live[0].traded_at}
    known = stored(asyncio.run(published(settings)))
    assert {key: known.get(key) for key in until_edge} == {key: expected[key] for key in until_edge}
