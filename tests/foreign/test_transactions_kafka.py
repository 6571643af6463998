"""Producers that write in transactions: what they abort never happened, and their markers are no messages."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from foreign_client import ForeignProducer, Sent, committed_by, transactional
from foreign_samples import MINUTE_US, NAMES, SYMBOLS, gaps, make_trades, records_of
from waiting import all_committed, end_of

from ashi.client import Settings, read_candles
from ashi.contracts import Trade, encode_candle
from ashi.contracts.late_gaps import is_late_gap
from ashi.contracts.topics import AGGREGATE_APP, CANDLES, FEED_GAPS, TRADES
from ashi.runtime.kafka.cluster.ends import stable_ends, written_ends
from ashi.runtime.kafka.cluster.offsets import end_offsets, first_append_time, last_append_time, left_to_read
from ashi.runtime.kafka.connections.clients import make_consumer, partition_of, partitions_of
from ashi.runtime.kafka.consuming.records import read_at, read_topic
from ashi.runtime.kafka.consuming.spans import fetch_spans
from ashi_ingest.feed.symbol.resume import read_resume_points
from ashi_sinks.registry import open_reader
from oracle import candles_of, closed, stored, timely

pytestmark = pytest.mark.kafka

OF_A_TRANSACTION = 40


def send_half(foreign: ForeignProducer, records: list[Sent]) -> list[Sent]:
    """Every other transaction is aborted, the last one too; those that were not."""
    kept = []
    for number, begin in enumerate(range(0, len(records), OF_A_TRANSACTION)):
        part = records[begin : begin + OF_A_TRANSACTION]
        aborted = number % 2 == 1
        with foreign.transaction(aborted=aborted):
            foreign.send(part)
        kept += [] if aborted else part
    return kept


async def read_spans(settings: Settings, topic: str, most: int, bare: tuple[str, ...] = ()) -> dict[int, list[Any]]:
    """All of a topic as spans; each must begin where the one before it ended."""
    consumer = make_consumer(settings, group_id=None)
    await consumer.start()
    try:
        partitions = await partitions_of(settings, topic)
        consumer.assign(partitions)
        ends = await stable_ends(consumer, partitions)
        assert ends == await written_ends(consumer, partitions)
        place = dict.fromkeys(partitions, 0)
        records: dict[int, list[Any]] = {at.partition: [] for at in partitions}
        while any(place[at] < end for at, end in ends.items()):
            spans = await fetch_spans(consumer, (), wait_s=5, max_records=most, bare=bare)
            assert spans, f"nothing more comes at {place} of {ends}"
            for at, span in spans.items():
                assert span.begin == place[at] < span.end
                if not bare:
                    assert all(span.begin <= record.offset < span.end for record in span.records)
                records[at.partition] += span.records
                place[at] = span.end
        return records
    finally:
        await consumer.stop()


def test_spans_leave_out_what_was_aborted_and_lack_nothing_that_another_client_reads(kafka_settings: Settings) -> None:
    records = records_of(make_trades(1_000, seed=7))
    kept = send_half(transactional(kafka_settings, "a-team", compression_type="zstd"), records)
    assert 0 < len(kept) < len(records)
    for most in (10_000, 7):
        found = asyncio.run(read_spans(kafka_settings, TRADES, most))
        of_another = committed_by(kafka_settings, TRADES, sum(map(len, found.values())))
        ours = {(number, record.offset, record.value) for number, of in found.items() for record in of}
        assert ours == of_another
        assert sorted(value for _, _, value in ours) == sorted(value for _, _, value in kept if value)
        bare = asyncio.run(read_spans(kafka_settings, TRADES, most, (TRADES,)))
        assert bare == {number: [(record.key, record.value) for record in of] for number, of in found.items()}


def test_places_with_nothing_but_markers_behind_or_before_them(kafka_settings: Settings) -> None:
    """Whoever asks for the first, the last or one certain record must not wait for one that no reader gets."""
    foreign = transactional(kafka_settings, "a-team")
    key = SYMBOLS[0].encode()
    home = partition_of(key, kafka_settings.partitions)
    with foreign.transaction(aborted=True):
        foreign.send([(TRADES, key, b"aborted")] * 3)

    async def nothing() -> None:
        assert await end_of(kafka_settings, TRADES, home, 4) == 4
        assert await first_append_time(kafka_settings, TRADES, [home]) is None
        assert await last_append_time(kafka_settings, TRADES) is None
        ends = await end_offsets(kafka_settings, TRADES)
        assert not any((await left_to_read(kafka_settings, TRADES, {}, ends)).values())
        assert [record async for record in read_topic(kafka_settings, TRADES)] == []
        assert await read_resume_points(kafka_settings, SYMBOLS[:1]) == {SYMBOLS[0]: []}

    asyncio.run(asyncio.wait_for(nothing(), 30))
    with foreign.transaction():
        foreign.send([(TRADES, key, b"first"), (TRADES, key, b"last")])  # 4 and 5, and a marker
    with foreign.transaction(aborted=True):
        foreign.send([(TRADES, key, b"aborted")] * 50)

    async def something() -> None:
        assert await end_of(kafka_settings, TRADES, home, 58) == 58
        ends = await end_offsets(kafka_settings, TRADES)
        [first, last] = [record async for record in read_topic(kafka_settings, TRADES)]
        assert (first.offset, last.offset) == (4, 5)
        assert await first_append_time(kafka_settings, TRADES, [home]) == first.timestamp
        assert await last_append_time(kafka_settings, TRADES) in (first.timestamp, last.timestamp)
        for place, left in ((0, 54), (4, 54), (5, 53), (6, 0), (57, 0), (58, 0)):
            assert (await left_to_read(kafka_settings, TRADES, {home: place}, ends))[home] == left
        assert set(await read_at(kafka_settings, TRADES, home, [3, 5, 6, 30])) == {5}

    asyncio.run(asyncio.wait_for(something(), 30))


def nearly_over() -> int:
    """A second before the end of a minute that is past, µs: its window is over by the clock three seconds later."""
    return time.time_ns() // 1_000 // MINUTE_US * MINUTE_US - 1_000_000


def a_trade(symbol: str, traded_at: int, number: int) -> Trade:
    return msgspec.structs.replace(
        make_trades(1, seed=number)[0],
        symbol=symbol,
        trade_id=str(number),
        traded_at=traded_at,
        received_at=traded_at,
        sequence=number,
    )


def test_every_stage_reads_what_was_committed_and_stands_at_no_marker(
    kafka_settings: Settings, start_stage: Any, tmp_path: Path, ashi: Any
) -> None:
    log = make_trades(3_000, seed=11)
    url, lake = f"sqlite:///{tmp_path}/candles.db", f"lake:///{tmp_path}/lake"
    foreign = transactional(kafka_settings, "a-team")
    values = {value for _, _, value in send_half(foreign, records_of(log))}
    counted = [trade for trade, (_, _, value) in zip(log, records_of(log), strict=True) if value in values]
    kept_gaps = send_half(foreign, gaps(100))
    worker = start_stage("aggregate", ASHI_CHECKPOINT_INTERVAL="100ms", ASHI_QUIET_CLOSE="on", ASHI_FLAT_CANDLES="0")
    sinks = [
        start_stage("sink", "sqlite", ASHI_STORAGE=url),
        start_stage("sink", "lake", "--topic", "trades", ASHI_STORAGE=lake),
    ]

    async def candles() -> dict[Any, Any]:
        return {
            (each.symbol, each.timeframe, each.open_time): each
            async for each in read_candles(kafka_settings, follow=False)
        }

    async def read_all() -> None:
        await all_committed(kafka_settings, AGGREGATE_APP, TRADES)
        await all_committed(kafka_settings, "ashi-sink-sqlite", CANDLES, FEED_GAPS)
        await all_committed(kafka_settings, "ashi-sink-lake-trades", TRADES)
        right = candles_of(timely(counted, "1m", 120_000_000), NAMES)
        found = stored(list((await candles()).values()))
        assert found == {key: right[key] for key in found}
        due = closed(right, counted, 2_000_000)  # by later trades; the clock closes more
        assert {key for key, value in due.items() if value["trade_count"]} <= set(found)
        async with open_reader(url) as reader:
            of_symbols = [await reader.gaps(symbol) for symbol in SYMBOLS[:3]]
        assert sum(not is_late_gap(gap) for gaps in of_symbols for gap in gaps) == len(kept_gaps)

    asyncio.run(read_all())
    for trades in ((), (lake, "--from", "2020-01-01")):
        status, out, err = ashi("verify", url, "--trades", *trades, "--json")
        assert out, err
        summary = json.loads(out.splitlines()[-1])["summary"]
        assert (status, summary["notes"]) == (0, []), out[-2_000:]

    # A candle with a marker behind it: no message for readers, though every partition ends with one.
    candle = next(iter(asyncio.run(candles()).values()))
    with foreign.transaction():
        foreign.send([(CANDLES, candle.symbol.encode(), encode_candle(candle))])

    # Nothing but what was aborted comes to workers that wait for more.
    with foreign.transaction(aborted=True):
        foreign.send(records_of(make_trades(100, seed=12)))

    # By the clock: at a marker the window closes; while a transaction is open behind it, it does not.
    first, second = (
        SYMBOLS[0],
        next(
            symbol
            for symbol in SYMBOLS
            if partition_of(symbol.encode(), kafka_settings.partitions)
            != partition_of(SYMBOLS[0].encode(), kafka_settings.partitions)
        ),
    )
    at = nearly_over()
    behind = ForeignProducer(kafka_settings)
    with foreign.transaction():
        foreign.send(records_of([a_trade(first, at, 1), a_trade(second, at, 2)]))
    foreign.producer.begin_transaction()
    foreign.send(records_of([a_trade(second, at + 1, 3)]))
    behind.send(records_of([a_trade(second, at + 2, 4)]))  # nobody gets it either

    async def close() -> None:
        window = at // MINUTE_US * MINUTE_US
        deadline = time.monotonic() + 60
        while (first, "1m", window) not in (found := await candles()):
            assert time.monotonic() < deadline, worker.log.read_text()[-3_000:]
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        assert (second, "1m", window) not in (found := await candles())
        await asyncio.to_thread(foreign.producer.commit_transaction, 30)
        while (second, "1m", window) not in (found := await candles()):
            assert time.monotonic() < deadline, worker.log.read_text()[-3_000:]
            await asyncio.sleep(0.1)
        assert found[second, "1m", window].trade_count == 3
        await all_committed(kafka_settings, AGGREGATE_APP, TRADES)
        await all_committed(kafka_settings, "ashi-sink-sqlite", CANDLES)

    asyncio.run(close())
    assert "reading them again" not in worker.log.read_text()
    for stage in (worker, *sinks):
        assert "records are missing" not in stage.log.read_text()
        assert stage.process.poll() is None, stage.log.read_text()[-3_000:]
