"""The programs in Java of docs/examples, started from their source as a stranger would."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ashi.contracts.candle import CANDLE_SCHEMA, encode_candle
from ashi.contracts.instrument import INSTRUMENT_SCHEMA, Instrument, encode_instrument
from ashi.contracts.topics import CANDLES, INSTRUMENTS, TopicSpec
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import make_consumer, make_producer
from ashi.runtime.kafka.producing.dead_letters import message_headers
from samples.candles import BTC, ETH, a_candle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.contracts import Candle
    from ashi.runtime.settings import Settings

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
JAVAC = shutil.which("javac")
BOUND_S = 240

sys.path.insert(0, str(ROOT / "benchmarks"))

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.outside,
    pytest.mark.timeout(600),  # the first time some 80 MB of jars are fetched
    pytest.mark.skipif(JAVAC is None, reason="NOT TESTED: no javac here; apt-get install default-jdk-headless"),
]


def command(name: str, *arguments: object) -> list[str]:
    """With the jars of Kafka Streams, which bring kafka-clients and Jackson along."""
    from engines import MissingError, jars_of

    try:
        jars = jars_of("kafka_streams")
    except MissingError as error:
        pytest.skip(f"NOT TESTED: {error}")
    assert JAVAC is not None
    java = Path(JAVAC).resolve().with_name("java")
    path = os.pathsep.join(map(str, jars))
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    return [str(word) for word in (java, quiet, "-cp", path, EXAMPLES / name, *arguments)]


# Those options are for the Java of the brokers that tests start; this may be an earlier one.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "JDK_JAVA_OPTIONS"}
SENT = [
    a_candle(0, 2), a_candle(0, 2, symbol=ETH), a_candle(1, 3), a_candle(0, 9, timeframe="5m"),
    a_candle(0, 7, price="8763519.5"), a_candle(0, 2), a_candle(1, 3, price="5"), a_candle(2, 4),
]  # fmt: skip
"""Repeated, corrected, out of order, two of one version."""


async def send(settings: Settings, candles: Sequence[Candle]) -> None:
    producer = make_producer(settings)
    await producer.start()
    try:
        for quote in ("USD", "JPY"):
            instrument = Instrument(BTC, "BTC", quote, Decimal(1), Decimal("0.001"), "trading", 10**15)
            await producer.send_and_wait(
                INSTRUMENTS, encode_instrument(instrument), BTC.encode(), headers=message_headers(INSTRUMENT_SCHEMA)
            )
        later = encode_candle(a_candle(2, 99))
        await producer.send_and_wait(CANDLES, later, BTC.encode(), headers=message_headers("ashi.candle.v2"))
        for candle in candles:
            value, key = encode_candle(candle), candle.symbol.encode()
            await producer.send_and_wait(CANDLES, value, key, headers=message_headers(CANDLE_SCHEMA))
    finally:
        await producer.stop()


def test_a_reader_in_java_prints_what_counts(kafka_settings: Settings) -> None:
    asyncio.run(send(kafka_settings, SENT))
    done = subprocess.run(
        command("Candles.java", kafka_settings.kafka_bootstrap, BTC, "1m"),
        env=ENVIRONMENT, capture_output=True, encoding="utf-8", timeout=BOUND_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3_000:]
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    kept = [a_candle(0, 7, price="8763519.5"), a_candle(1, 3), a_candle(2, 4)]
    assert [[Decimal(number) for number in numbers] for _, *numbers in lines] == [
        [one.open, one.high, one.low, one.close, one.volume] for one in kept
    ]
    assert lines[0][0] == "2022-01-01T00:00:00Z"
    assert done.stderr.count("is passed over") == 1


async def turnovers(settings: Settings, topic: str, count: int) -> list[dict[str, Any]]:
    """So many messages of a topic, once it is there."""
    consumer = make_consumer(settings, topic, group_id=None, auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(BOUND_S):
            return [json.loads((await consumer.getone()).value) for _ in range(count)]
    finally:
        await consumer.stop()


def test_a_join_in_kafka_streams_needs_no_topic_in_between(kafka_settings: Settings, tmp_path: Path) -> None:
    asyncio.run(send(kafka_settings, SENT))
    asyncio.run(create_topics(kafka_settings, [TopicSpec("turnovers", 3)]))
    running = subprocess.Popen(
        command("TurnoverStream.java", kafka_settings.kafka_bootstrap, "turnovers"),
        env=ENVIRONMENT | {"JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={tmp_path}"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
    )  # fmt: skip
    try:
        found = asyncio.run(turnovers(kafka_settings, "turnovers", 6))
    finally:
        running.terminate()
        said, _ = running.communicate(timeout=BOUND_S)
    assert "repartition" not in said.lower()
    assert "a record is passed over: ashi.candle.v2" in said
    of_btc = [each for each in found if each["symbol"] == BTC]
    assert [(each["timeframe"], each["version"]) for each in of_btc] == [
        ("1m", 2), ("1m", 3), ("5m", 9), ("1m", 7), ("1m", 4),
    ]  # fmt: skip
    assert {each["currency"] for each in of_btc} == {"JPY"}
    [other] = [each for each in found if each["symbol"] == ETH]
    assert (other["version"], other["currency"]) == (2, None)
