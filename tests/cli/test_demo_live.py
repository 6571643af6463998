"""`ashi demo --live` as a user runs it, on a simulated venue and where no venue can be reached."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ashi_cli import values
from kafka_topics.fresh_topics import PARTITIONS
from servers.stages import simulated_venue

if TYPE_CHECKING:
    from pathlib import Path

ASHI = [sys.executable, "-P", "-m", "ashi_cli.main"]


def run(workdir: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ASHI, "demo", "--live", "--workdir", str(workdir), *arguments],
        env={**os.environ, "ASHI_PARTITIONS": str(PARTITIONS), **env},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.processes
def test_where_no_venue_can_be_reached_it_says_so_at_once_and_offers_the_recordings(tmp_path):
    done = run(tmp_path, ASHI_WEBSOCKET_URL="ws://127.0.0.1:1")
    assert done.returncode == 1
    for venue in ("bitflyer", "gmo", "binance", "binance-usdm"):
        assert f"{venue}: 127.0.0.1:1: " in done.stderr
    assert "`make demo`) shows the same with recordings" in done.stderr
    assert not (tmp_path / "broker").exists()


@pytest.mark.parametrize("text", ["bitflyer:BTC_JPY", "bitflyer=BTC_JPY"])
def test_a_market_is_written_as_its_symbol_is_or_as_it_was_once(text):
    assert values.market(text) == ("bitflyer", "BTC_JPY")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--market", "nasdaq:AAPL"], "there is no venue 'nasdaq'"),
        (["--recording", "binance=x.gz"], "leave one out"),
        (["--market", "binance"], "is not VENUE:MARKET"),
    ],
)
@pytest.mark.processes
def test_what_makes_no_sense_is_refused_before_anything_starts(tmp_path, arguments, reason):
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert reason in done.stderr


@pytest.mark.kafka
def test_a_simulated_venue_becomes_candles_for_so_many_seconds(tmp_path):
    with simulated_venue("bitflyer", "BTC_JPY", "FX_BTC_JPY", "--rate", "100", "--faults", "5") as addresses:
        markets = ["--market", "bitflyer:BTC_JPY", "--market", "bitflyer=FX_BTC_JPY"]
        done = run(tmp_path, *markets, "--timeframes", "1s,5s", "--seconds", "12", "--json", **addresses)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads(done.stdout)
    assert summary["trades_published"] > 150
    assert summary["candles_stored"] > 0
    assert summary["trades_dead"] + summary["trades_late"] < summary["trades_published"] / 10
    assert "reading bitflyer:BTC_JPY, bitflyer:FX_BTC_JPY; Ctrl-C ends it" in done.stderr


@pytest.mark.kafka
def test_ctrl_c_ends_the_reading_and_the_candles_are_shown(tmp_path):
    with simulated_venue("binance", "BTCUSDT", "--rate", "60") as addresses:
        process = subprocess.Popen(
            [*ASHI, "demo", "--live", "--workdir", str(tmp_path), "--market", "binance=BTCUSDT", "--timeframes", "1s"],
            env={**os.environ, "ASHI_PARTITIONS": str(PARTITIONS), **addresses},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            assert any(re.search(r"candles: [1-9][0-9,]* emitted", line) for line in process.stderr)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0
    assert "binance:BTCUSDT  1s" in out
    assert "trades published" in out
