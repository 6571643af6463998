"""A program in Java that was written from docs/messages.md reads topic `candles` by kafka-clients."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest
from foreign_client import CODECS, ForeignProducer, Sent, transactional
from foreign_samples import make_trades, pausing_trades

from ashi.contracts import Candle, encode_candle
from ashi.contracts.candle import CANDLE_SCHEMA, candle_fields
from ashi.contracts.topics import CANDLES
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi.runtime.settings import Settings
from ashi_aggregate.core.aggregator import TimeframeAggregator
from ashi_cli.onemachine.jars import classpath

JAVAC = shutil.which("javac")

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.outside,
    pytest.mark.skipif(JAVAC is None, reason="NOT TESTED: no javac here; apt-get install default-jdk-headless"),
]


def candles() -> list[Candle]:
    """As they are closed, flat ones among them; every other one corrected; then all as they were first, once more."""
    of_symbols: dict[str, TimeframeAggregator] = defaultdict(lambda: TimeframeAggregator("1m"))
    log = [*make_trades(2_000, seed=17), *pausing_trades()]
    made = [candle for trade in log for candle in of_symbols[trade.symbol].on_trade(trade)]
    corrected = [msgspec.structs.replace(each, high=each.high + 1, version=each.version + 1) for each in made[::2]]
    return [*made, *(each for each in corrected if each.trade_count), *made]


def read(settings: Settings) -> subprocess.CompletedProcess[str]:
    assert JAVAC is not None
    java = Path(JAVAC).resolve().with_name("java")
    source = Path(__file__).with_name("CandleReader.java")
    jars = os.pathsep.join(map(str, classpath()))
    return subprocess.run(
        [java, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", jars, source, settings.kafka_bootstrap],
        # Those options are for the Java of the brokers that tests start; this may be an earlier one.
        env={name: value for name, value in os.environ.items() if name != "JDK_JAVA_OPTIONS"},
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


def test_a_reader_in_java_written_from_the_page_keeps_the_candles_that_count(kafka_settings: Settings) -> None:
    made = candles()
    right: dict[tuple[str, str, int], Candle] = {}
    for candle in made:
        key = (candle.symbol, candle.timeframe, candle.open_time)
        if key not in right or candle.version > right[key].version:
            right[key] = candle
    assert any(candle.trade_count == 0 for candle in right.values())
    records: list[Sent] = [(CANDLES, each.symbol.encode(), encode_candle(each)) for each in made]
    part = len(records) // len(CODECS) + 1
    for number, codec in enumerate(CODECS):
        ForeignProducer(kafka_settings, compression_type=codec).send(
            records[number * part : (number + 1) * part], [*message_headers(CANDLE_SCHEMA)]
        )
    aborting = transactional(kafka_settings, "a-team")
    with aborting.transaction(aborted=True):
        aborting.send([(CANDLES, key, b"never happened") for _, key, _ in records[:50]])

    done = read(kafka_settings)
    assert done.returncode == 0, done.stderr[-3_000:]
    found = {tuple(line.split("\t")) for line in done.stdout.splitlines()}
    as_text = {
        tuple("null" if value is None else str(value) for value in candle_fields(candle).values())
        for candle in right.values()
    }
    assert found == as_text

    # It is as strict as it says: what the page does not name ends it.
    one = encode_candle(made[0])
    ForeignProducer(kafka_settings).send([(CANDLES, made[0].symbol.encode(), one[:-1] + b',"more":1}')])
    refused = read(kafka_settings)
    assert refused.returncode != 0
    assert "the page does not name [more]" in refused.stderr
