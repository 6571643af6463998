"""Every stage reads what others have compressed, and what a topic's own `compression.type` has."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from foreign_client import CODECS, ForeignProducer, Sent, set_compression
from foreign_samples import NAMES, OTHER, SYMBOLS, candles, gaps, instruments, make_trades, records_of, statuses
from waiting import all_committed

from ashi.client import Settings, read_candles
from ashi.contracts.late_gaps import is_late_gap
from ashi.contracts.topics import AGGREGATE_APP, CANDLES, FEED_GAPS, FEED_STATUS, META, TRADES, state_topics
from ashi_ingest.feed.reporting.reported import read_feed
from ashi_ingest.feed.symbol.resume import read_resume_points
from ashi_ingest.instruments import read_instruments
from ashi_sinks.registry import open_reader
from oracle import candles_of, closed, stored, timely

pytestmark = pytest.mark.kafka


def send_in_every_codec(settings: Settings, records: list[Sent]) -> None:
    part = len(records) // len(CODECS)
    for number, codec in enumerate(CODECS):
        foreign = ForeignProducer(settings, compression_type=codec)
        foreign.send(records[number * part : (number + 1) * part])


def test_every_stage_reads_every_codec(kafka_settings: Settings, start_stage: Any, tmp_path: Path, ashi: Any) -> None:
    log = make_trades(5_000, seed=3)
    url, lake = f"sqlite:///{tmp_path}/candles.db", f"lake:///{tmp_path}/lake"
    # Markers, the rows of three timeframes, and candles: the broker compresses them in another way than they come in.
    topics = [*state_topics(kafka_settings.timeframes), CANDLES, META]
    set_compression(kafka_settings, dict(zip(topics, ["gzip", "snappy", "lz4", "zstd", "lz4", "snappy"], strict=True)))
    for records in (records_of(log), gaps(50), statuses(50), candles(50), instruments(50)):
        send_in_every_codec(kafka_settings, records)

    async def scenario() -> None:
        worker = start_stage("aggregate", ASHI_CHECKPOINT_INTERVAL="100ms", ASHI_KAFKA_COMPRESSION="snappy")
        sinks = [
            start_stage("sink", "sqlite", ASHI_STORAGE=url),
            start_stage("sink", "lake", "--topic", "trades", ASHI_STORAGE=lake),
        ]
        await all_committed(kafka_settings, AGGREGATE_APP, TRADES)
        worker.signal(signal.SIGTERM)  # the next one reads the changelogs
        again = start_stage("aggregate", ASHI_CHECKPOINT_INTERVAL="100ms")
        await asyncio.to_thread(again.wait_for, "ready")
        await all_committed(kafka_settings, "ashi-sink-sqlite", CANDLES, FEED_GAPS, FEED_STATUS)
        await all_committed(kafka_settings, "ashi-sink-lake-trades", TRADES)
        for stage in (again, *sinks):
            assert stage.process.poll() is None, stage.log.read_text()[-3_000:]
        found = [candle async for candle in read_candles(kafka_settings, symbols=SYMBOLS, follow=False)]
        assert stored(found) == closed(candles_of(timely(log, "1m", 120_000_000), NAMES), log, 2_000_000)
        assert len(await read_resume_points(kafka_settings, SYMBOLS)) == len(SYMBOLS)
        reported = await read_feed(kafka_settings, SYMBOLS[:3])
        assert [len(reported[symbol].gaps) for symbol in SYMBOLS[:3]] == [17, 17, 16]
        assert all(reported[symbol].status is not None for symbol in SYMBOLS[:3])
        assert len(await read_instruments(kafka_settings, "binance")) == 50
        async with open_reader(url) as reader:
            assert await reader.count(OTHER, "1m") == 50
            of_symbols = [await reader.gaps(symbol) for symbol in SYMBOLS[:3]]
        assert sum(not is_late_gap(gap) for gaps in of_symbols for gap in gaps) == 50

    asyncio.run(scenario())
    for trades in ((), (lake, "--from", "2020-01-01")):
        status, out, err = ashi("verify", url, "--trades", *trades, "--json")
        assert out, err
        summary = json.loads(out.splitlines()[-1])["summary"]
        assert (status, summary["equal"]) == (0, True), out[-2_000:]
        assert summary["compared"] > 100
