"""`ashi demo` as a user runs it: real processes, a real broker, signals, damaged recordings, dying stages."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from running import WAIT_S, Running, arguments, assert_gone

from ashi.contracts.candle import Candle
from ashi_ingest.recording.bundled import BUNDLED
from ashi_ingest.recording.format import Line, read_recording
from ashi_ingest.venues.registry import VENUES
from kafka_topics.fresh_topics import PARTITIONS
from oracle import candles_of, closed, stored, timely
from servers.free_ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers.postgres import PostgresServer

pytestmark = pytest.mark.kafka

START_MS = 1_723_161_240_000
BY_DEFAULT = "8"
"""Partitions of a topic; the other demos here make fewer, in less time."""


def frame(number: int, symbol: str, time_ms: int, price: str = "2683.5") -> str:
    event = {"e": "trade", "E": time_ms, "s": symbol, "t": number, "p": price, "q": "0.25", "T": time_ms, "m": True}
    return f"{time_ms}000000 {json.dumps(event)}\n"


def synthetic(trades: int = 6_000, symbols: int = 12, span_ms: int = 400_000) -> list[str]:
    """Lines of a recording: trades of several symbols, out of order by up to a second."""
    chance = random.Random(7)
    return [
        frame(
            number,
            f"S{chance.randrange(symbols)}USDT",
            START_MS + number * span_ms // trades - chance.randrange(1000),
            f"{chance.randrange(100, 200)}.{chance.randrange(100):02}",
        )
        for number in range(trades)
    ]


def trades_in(venue: str, *paths: Path) -> list[Any]:
    parser = VENUES[venue].parser()
    lines = [line for path in paths for line in read_recording(path)]
    return [t for line in lines if isinstance(line, Line) for t in parser.parse(line.frame, line.received_at).trades]


@contextmanager
def demo(workdir: Path, *arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A running demo; whatever happens, neither it nor a child of it outlives the block."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "ashi_cli.main", "demo", "--workdir", str(workdir), *arguments],
        env={**os.environ, "ASHI_PARTITIONS": str(PARTITIONS), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def run(workdir: Path, *arguments: str, **env: str) -> tuple[int, str, str]:
    with demo(workdir, *arguments, **env) as process:
        out, err = process.communicate(timeout=WAIT_S * 2)
        return process.returncode, out, err


def candles(url: str, series: list[tuple[str, str]]) -> list[Candle]:
    import asyncio

    from ashi_sinks.registry import open_reader

    async def read() -> list[Candle]:
        async with open_reader(url) as reader:
            assert sorted(series) == sorted(span[:2] for span in await reader.spans())
            return [candle for of in series for candle in [c async for c in reader.read(*of)]]

    return asyncio.run(read())


def await_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"the demo ended without saying {text!r}")


def await_children(process: subprocess.Popen[str], word: str) -> list[psutil.Process]:
    """All descendants, as soon as one has `word` among its arguments."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        children = psutil.Process(process.pid).children(recursive=True)
        if any(word in arguments(child) for child in children):
            return children
        time.sleep(0.1)  # each look goes through all processes of the machine
    raise AssertionError(f"no child runs {word}")


def test_the_bundled_recordings_become_the_oracles_candles_in_a_table_a_store_and_a_chart_that_stays(
    tmp_path: Path,
) -> None:
    port, log = free_port(), tmp_path / "demo.log"
    options = ["--keep", "--port", str(port), "--workdir", str(tmp_path)]
    with Running(log, "demo", *options, ASHI_PARTITIONS=BY_DEFAULT) as kept:
        address = f"http://127.0.0.1:{port}/chart?symbol=binance:ETHUSDT&timeframe=1m"
        kept.wait_for(f"The chart is on {address} until Ctrl-C.\n")
        with urllib.request.urlopen(address, timeout=10) as page:
            assert page.status == 200
        everything = kept.children()
        assert {"aggregate", "chart", "kafka.Kafka"} <= {word for child in everything for word in arguments(child)}
        assert kept.end(signal.SIGINT, WAIT_S) == 0
        assert_gone(everything)
    said = kept.said()
    assert "14,677 trades published, 0 dead, 0 late; 15 candles stored, 16 still open;" in said
    assert "2024-08-09 00:04  2677.71  2681.64  2677.67  2677.67  210.1914   1,033\n" in said
    assert "2024-08-09 00:05  2677.68  2678.07  2677.61  2677.61    3.0998      71  open\n" in said
    assert "bitflyer:FX_BTC_JPY  1m  (2 open)\n" in said
    assert f"Stored in sqlite:///{tmp_path}/candles.db. To look further:\n" in said
    assert "Kafka is ready on" in said
    assert "the chart has ended; nothing is left running" in said

    names = ["1m", "5m", "1h"]
    trades = trades_in("binance", *BUNDLED["binance"])
    found = stored(candles(f"sqlite:///{tmp_path}/candles.db", [("binance:ETHUSDT", name) for name in names]))
    assert found == closed(candles_of(trades, names), trades, 2_000_000)


@pytest.mark.postgres
def test_three_workers_store_the_oracles_rows_in_a_new_postgresql_and_the_summary_counts_what_became_of_each_trade(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """It makes the tables that it needs. One worker, and SQLite: the recordings above."""
    recording, url = tmp_path / "synthetic.txt", postgres.new_schema()
    lines = synthetic()
    lines.insert(100, f"{START_MS}000000 " + '{"e":"trade","s":"S1USDT","t":1,"p":"NaN","q":"1","T":1,"m":true}\n')
    lines.append(frame(99_999, "S1USDT", START_MS))  # more than six minutes late
    recording.write_text("".join(lines))
    settings = ["--recording", f"binance={recording}", "--timeframes", "1m,2m", "--workers", "3"]
    status, out, err = run(tmp_path / "work", "--json", "--storage", url, *settings)
    assert status == 0, err
    summary = json.loads(out)
    seconds = summary.pop("seconds")
    assert 0 < seconds < 120
    kept = candles(url, [(f"binance:S{symbol}USDT", name) for symbol in range(12) for name in ("1m", "2m")])
    assert summary == {
        "trades_published": 6_001,
        "trades_dead": 1,
        "trades_late": 1,
        "candles_stored": len(kept),
        "candles_open": 24,
    }
    address = "http://127.0.0.1:8080/chart?symbol=binance:S0USDT&timeframe=1m"
    assert f"As a chart, on {address}: make demo KEEP=1, or ashi demo --keep\n" in err
    assert f"1 records could not be read and are in topic trades.dead:\n  recording:{recording}:101: price" in err
    trades = trades_in("binance", recording)
    counted = timely(trades, "1m", 120_000_000)
    assert stored(kept) == closed(candles_of(counted, ["1m", "2m"]), trades, 2_000_000)


def test_a_second_demo_in_the_same_place_is_refused_and_sigterm_stops_the_first(tmp_path: Path) -> None:
    with demo(tmp_path) as first:
        await_line(first, "starting Apache Kafka")
        status, _, err = run(tmp_path)
        assert status == 2
        assert f"another `ashi demo` is running in {tmp_path}" in err
        children = await_children(first, "sink")
        assert len(children) >= 3  # the broker, the worker, the sink
        first.terminate()
        out, err = first.communicate(timeout=WAIT_S)
        assert first.returncode == 143
        assert "stopped by SIGTERM; nothing is left running" in err
        assert out == ""
        assert_gone(children)


def test_after_ctrl_c_while_the_broker_starts_nothing_is_left(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        children = await_children(process, "kafka.Kafka")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WAIT_S)
        assert process.returncode == 130
        assert_gone(children)


def test_a_killed_demo_takes_its_children_with_it_and_the_next_one_reads_a_truncated_recording(tmp_path: Path) -> None:
    store = tmp_path / "work" / "candles.db"
    with demo(tmp_path / "work") as process:
        children = await_children(process, "ingest")
        deadline = time.monotonic() + WAIT_S
        while not store.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        process.wait()
        assert_gone(children)

    lines = synthetic(symbols=2)
    whole = gzip.compress("".join(lines).encode(), mtime=0)
    cut, after = tmp_path / "cut.txt.gz", tmp_path / "after.txt"
    cut.write_bytes(whole[: len(whole) // 2])
    after.write_text(frame(90_000, "S0USDT", START_MS + 3_600_000))
    recordings = ["--recording", f"binance={cut}", "--recording", f"binance={after}"]
    url = f"sqlite:///{store}"  # what the demo that was killed has left
    status, out, err = run(tmp_path / "work", "--json", "--storage", url, "--overwrite", *recordings)
    assert status == 3, err
    assert f"read only in part: {cut}: the compressed data after line " in err

    read: list[str] = []
    with pytest.raises(EOFError), gzip.open(cut, "rt") as file:
        read.extend(file)
    summary = json.loads(out)
    published = summary["trades_published"]
    assert len(read) - 2 <= published - 1 <= len(read) + 2000
    assert published < len(lines)
    series = [(f"binance:S{symbol}USDT", name) for symbol in range(2) for name in ("1m", "5m")]
    minutes = [c for c in candles(url, [*series, ("binance:S0USDT", "1h")]) if c.timeframe == "1m"]
    assert summary["candles_stored"] > len(minutes) > 4
    closed_by_the_last = sum(c.trade_count for c in minutes if c.symbol == "binance:S0USDT")
    assert closed_by_the_last == sum('"S0USDT"' in line for line in lines[: published - 1])


@pytest.mark.parametrize(
    ("word", "name", "log"), [("sink", "sink-sqlite", "logs"), ("kafka.Kafka", "broker", "broker")]
)
def test_a_stage_that_dies_is_named_with_its_log_and_nothing_is_left(
    word: str, name: str, log: str, tmp_path: Path
) -> None:
    with demo(tmp_path) as process:
        children = await_children(process, "sink")
        (victim,) = [child for child in children if word in arguments(child)]
        victim.kill()
        out, err = process.communicate(timeout=WAIT_S)
        assert process.returncode == 1
        assert f"ashi: stage {name} was killed by SIGKILL before the work was done" in err
        assert f"Its log {tmp_path / log}/" in err
        assert "Traceback" not in err
        assert out == ""
        assert_gone(children)
