from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest
from s3_server import serving
from sink_certification import a_candle, a_gap, a_status, opened, oracle, stored, stored_gaps, until
from sink_fakes import a_service

from ashi.contracts.candle import encode_candle
from ashi.contracts.errors import StorageError
from ashi.contracts.timeframe import HOUR_US
from ashi.contracts.topics import CANDLES
from ashi.runtime.kafka.connections.clients import make_producer
from ashi_sinks.lake.location import lake_of
from ashi_sinks.lake.maintenance import compact, vacuum
from ashi_sinks.lake.reader import LakeReader
from ashi_sinks.lake.sink import LakeSink
from ashi_sinks.protocol import RetryableError
from ashi_sinks.registry import remove_store, store_exists
from ashi_sinks.streams import CandleStreams
from ashi_sinks.writer import Writer

pytestmark = pytest.mark.processes

URL = "lake+s3://lakes/market/one"


@pytest.fixture
def s3(monkeypatch):
    with serving() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEY")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "HUSH")
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        yield server


def test_a_lake_on_s3_holds_what_was_written_and_is_compacted_and_vacuumed(s3):
    lake = lake_of(URL)
    batches = [[a_candle(minute, version) for minute in range(3)] for version in (2, 1, 3)]

    async def scenario():
        async with opened(LakeSink(lake)) as sink:
            for batch in batches:
                await sink.write(batch)
            await sink.write([a_candle(9)])
            await sink.write_gaps([a_gap()])
            await sink.write_statuses([a_status()])
        done, *_ = await asyncio.to_thread(lambda: list(compact(lake)))
        assert (done.partitions, done.after) == (1, 1)
        await asyncio.to_thread(lambda: list(vacuum(lake, HOUR_US)))
        async with opened(LakeReader(lake)) as reader:
            return await stored(reader), await stored_gaps(reader)

    assert not store_exists(URL)
    assert asyncio.run(scenario()) == (oracle([*batches[2], a_candle(9)]), [a_gap()])
    assert store_exists(URL)
    objects = s3.tell("state")["objects"]
    assert {key.split("/")[2] for key in objects} == {"candles", "feed_gaps", "feed_status"}
    with pytest.raises(StorageError, match="with a tool for S3"):
        remove_store(URL)


def test_workers_on_s3_never_overwrite_an_entry_of_the_log(s3):
    async def scenario():
        sinks = [LakeSink(lake_of(URL)) for _ in range(3)]
        for sink in sinks:
            await sink.open()

        async def work(sink, first):
            streams = CandleStreams(sink)
            writer = Writer(a_service(), streams.name, streams.what)
            for minute in range(first, 12, 3):
                await writer.write([a_candle(minute), a_candle(0, version=2 + minute)], streams.streams[0].write)

        await asyncio.gather(*(work(sink, number) for number, sink in enumerate(sinks)))
        async with opened(LakeReader(lake_of(URL))) as reader:
            return await stored(reader)

    assert asyncio.run(scenario()) == [a_candle(0, version=13), *(a_candle(minute) for minute in range(1, 12))]
    requests = s3.tell("state")["requests"]
    conditions = [condition for method, key, condition in requests if method == "PUT" and key.endswith(".json")]
    assert len(conditions) > 12
    assert set(conditions) == {"*"}


def test_s3_that_answers_with_errors_is_retried_also_at_the_start(s3):
    async def scenario():
        sink = LakeSink(lake_of(URL))
        s3.tell("down")
        began = time.monotonic()
        with pytest.raises(RetryableError, match="503"):
            await sink.open()
        assert time.monotonic() - began < 30, "the worker must be able to stop between"
        s3.tell("up")
        await sink.open()
        await sink.write([a_candle(0)])
        s3.tell("down")
        with pytest.raises(RetryableError, match="503"):
            await sink.write([a_candle(1)])
        s3.tell("up")
        await sink.write([a_candle(1)])
        async with opened(LakeReader(lake_of(URL))) as reader:
            return await stored(reader)

    assert asyncio.run(scenario()) == [a_candle(0), a_candle(1)]


@pytest.mark.slow
def test_a_worker_that_is_stopped_while_it_vacuums_ends_in_time_and_the_lake_is_whole(s3, kafka_settings, start_stage):
    """SIGTERM while S3 does not answer what is deleted: the driver cannot be interrupted, nor is it waited for."""
    lake, candles = lake_of(URL), [a_candle(minute) for minute in range(20)]
    orphan = "market/one/candles/left-behind.parquet"

    async def rows():
        async with opened(LakeReader(lake)) as reader:
            return await stored(reader)

    async def are_stored():
        return await rows() == candles

    async def scenario():
        async with opened(LakeSink(lake)) as sink:
            await sink.write(candles[:10])
        s3.put(orphan)  # as of a write that was broken off, long ago by the times that this server tells
        s3.tell("hold")
        worker = start_stage("sink", "lake", **env)
        await until(lambda: [key for method, key, _ in s3.tell("state")["requests"] if is_deletion(method, key)])
        await publish(kafka_settings, candles[10:])
        await until(are_stored)  # writing goes on meanwhile
        began_s = time.monotonic()
        worker.signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.process.wait, 30) == 0, worker.log.read_text()
        assert time.monotonic() - began_s < 15
        assert "vacuum is cut short by the stop" in worker.log.read_text()
        assert orphan in s3.tell("state")["objects"]
        s3.tell("delete")
        await asyncio.to_thread(lambda: list(vacuum(lake, HOUR_US)))
        assert orphan not in s3.tell("state")["objects"]
        assert await are_stored()

    env = {
        "ASHI_STORAGE": URL,
        "ASHI_LAKE_VACUUM_INTERVAL": "1s",
        "ASHI_LAKE_RETENTION": "1h",
        "ASHI_SINK_BATCH_INTERVAL": "100ms",
    }
    asyncio.run(scenario())


def is_deletion(method, key):
    return method == "DELETE" or (method == "POST" and not key)


async def publish(settings, candles):
    producer = make_producer(settings)
    await producer.start()
    try:
        for candle in candles:
            await producer.send_and_wait(CANDLES, encode_candle(candle), candle.symbol.encode())
    finally:
        await producer.stop()


@pytest.mark.parametrize(
    ("variable", "value", "url", "reason"),
    [
        ("AWS_ACCESS_KEY_ID", "OTHER", URL, "InvalidAccessKeyId"),
        ("AWS_REGION", "eu-central-1", "lake+s3://other/x", "NoSuchBucket"),
    ],
)
def test_a_key_or_a_bucket_that_is_wrong_is_fatal_at_the_start(s3, monkeypatch, variable, value, url, reason):
    monkeypatch.setenv(variable, value)
    with pytest.raises(StorageError, match=reason) as caught:
        asyncio.run(LakeSink(lake_of(url)).open())
    assert not isinstance(caught.value, RetryableError)
    assert "HUSH" not in str(caught.value)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ALLOW_HTTP": "true"},
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "KEY"},
    ],
    ids=["Amazon", "another-server", "half-a-key"],
)
def test_s3_without_keys_ends_at_the_start_and_names_the_variables_in_one_sentence(tmp_path, variables):
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_") and name != "RUST_LOG"}
    address = "http://127.0.0.1:9"  # where a machine of Amazon's would get its role
    nowhere = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": address, "AWS_METADATA_ENDPOINT": address}
    nowhere["HOME"] = str(tmp_path)  # without ~/.aws/credentials
    program = (
        "import asyncio\n"
        "from ashi_sinks.registry import make_sink\n"
        f"try: asyncio.run(make_sink('{URL}').open())\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=own | nowhere | variables, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("StorageError s3://lakes/market/one/feed_gaps cannot be opened: no keys for S3 are")
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or see that this machine of Amazon's has" in done.stdout
    assert done.stderr == ""
