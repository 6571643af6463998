"""The programs of docs/examples, as a stranger would copy them: run by themselves, with nothing of Ashi."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from foreign_client import transactional

from ashi.contracts.candle import CANDLE_SCHEMA, encode_candle
from ashi.contracts.feed import FEED_GAP_SCHEMA, FeedGap, encode_feed
from ashi.contracts.schemas.messages import SIGNAL
from ashi.contracts.signal import SIGNAL_SCHEMA, Signal, encode_signal
from ashi.contracts.topics import CANDLES, FEED_GAPS, SIGNALS
from ashi.runtime.kafka.connections.clients import make_producer
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi.runtime.settings import Settings
from samples.candles import BTC, ETH, a_candle

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
CONTRACT = ROOT / "docs" / "contracts" / "asyncapi.json"
BOUND_S = 60
STARTED = 1_723_161_240_000_000


def test_they_need_nothing_of_ashi_and_what_they_need_they_say() -> None:
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        imported = {
            line.split()[1].partition(".")[0] for line in text.splitlines() if re.match(r"(from|import) ", line)
        }
        foreign = {name.replace("_", "-") for name in imported - sys.stdlib_module_names}
        said = set(re.findall(r"'([a-z-]+)>=", text.partition('"""\n')[0] + text))
        assert foreign <= said <= foreign | {"cramjam", "deltalake"}, path.name  # these only have to be there
        assert path.name in (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")


def gap(state: Any, updated_at: int, from_time: int = STARTED) -> FeedGap:
    return FeedGap(BTC, from_time, None if state == "open" else from_time + 5, state, 0, "silent", updated_at)


async def send(settings: Settings) -> None:
    """Candles that are repeated, corrected, of others, and of a version to come; gaps that change and come late."""
    corrected, equal = a_candle(0, 7, price="8763519.5"), a_candle(1, 3, price="5")
    candles = [
        a_candle(0, 2), a_candle(0, 2, symbol=ETH), a_candle(1, 3), a_candle(0, 9, timeframe="5m"), corrected,
        a_candle(0, 2), equal, a_candle(2, 4),
    ]  # fmt: skip
    gaps = [
        gap("open", STARTED + 1),
        gap("repaired", STARTED + 3),
        gap("open", STARTED + 2),
        gap("lost", STARTED, STARTED + 9),
    ]
    producer = make_producer(settings)
    await producer.start()
    for candle in candles:
        value, key = encode_candle(candle), candle.symbol.encode()
        await producer.send_and_wait(CANDLES, value, key, headers=message_headers(CANDLE_SCHEMA))
    later = msgspec.json.decode(encode_candle(a_candle(2, 99))) | {"volume": {"base": "1"}}
    for headers in (
        message_headers("ashi.candle.v2"),
        [*message_headers(CANDLE_SCHEMA), ("schema", b"ashi.candle.v2")],
    ):
        await producer.send_and_wait(CANDLES, json.dumps(later).encode(), BTC.encode(), headers=headers)
    for one in gaps:
        await producer.send_and_wait(
            FEED_GAPS, encode_feed(one), one.symbol.encode(), headers=message_headers(FEED_GAP_SCHEMA)
        )
    await producer.stop()


def send_signals(settings: Settings) -> None:
    """One that is committed, and after it one that is aborted: at the end of the partition stand markers."""
    signal = SIGNAL.examples["long"]
    assert isinstance(signal, Signal)
    foreign = transactional(settings, "an-example")
    for aborted, version in ((False, 1), (True, 2)):
        value = encode_signal(msgspec.structs.replace(signal, version=version))
        with foreign.transaction(aborted=aborted):
            foreign.send([(SIGNALS, signal.symbol.encode(), value)], list(message_headers(SIGNAL_SCHEMA)))


def start(name: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.kafka
@pytest.mark.processes
def test_each_prints_what_counts_and_says_what_it_passes_over(kafka_settings: Settings) -> None:
    asyncio.run(send(kafka_settings))
    send_signals(kafka_settings)
    bootstrap = kafka_settings.kafka_bootstrap
    running = [
        start("candles_aiokafka.py", bootstrap, BTC, "1m"),
        start("candles_confluent.py", bootstrap, BTC, "1m"),
        start("by_contract.py", CONTRACT, bootstrap, CANDLES),
        start("by_contract.py", CONTRACT, bootstrap, FEED_GAPS),
        start("by_contract.py", CONTRACT, bootstrap, SIGNALS),
    ]
    try:
        said = [process.communicate(timeout=BOUND_S) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * 5, said
    kept = [a_candle(0, 7, price="8763519.5"), a_candle(1, 3), a_candle(2, 4)]
    for printed, passed_over in said[:2]:
        lines = [line.split("\t") for line in printed.splitlines()]
        assert [[Decimal(number) for number in numbers] for _, *numbers in lines] == [
            [one.open, one.high, one.low, one.close, one.volume] for one in kept
        ]
        assert lines[0][0] == "2022-01-01T00:00:00+00:00"
        assert len(re.findall(r"candles/\d+/\d+ is passed over: b'ashi.candle.v2'", passed_over)) == 2
    printed, passed_over = said[2]
    every = [*kept, a_candle(0, 2, symbol=ETH), a_candle(0, 9, timeframe="5m")]
    slot = ("symbol", "timeframe", "open_time", "version")
    found = [json.loads(line) for line in printed.splitlines()]
    assert {tuple(one[name] for name in slot) for one in found} == {
        tuple(getattr(one, name) for name in slot) for one in every
    }
    assert passed_over.count("'ashi.candle.v1' was expected") == 2
    printed, passed_over = said[3]
    assert [json.loads(line)["state"] for line in printed.splitlines()] == ["repaired", "lost"]
    assert "is passed over" not in passed_over
    assert [json.loads(line)["version"] for line in said[4][0].splitlines()] == [1]
