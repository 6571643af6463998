"""`ashi up` as a user runs it: killed whole and started again, its stages killed one by one, on simulated venues."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from running import WAIT_S, Running, assert_gone

from ashi_simulator.executions import PER_US
from ashi_simulator.markets.ongoing import OngoingMarkets
from ashi_simulator.process import ONGOING_RATE
from ashi_sinks.registry import open_reader
from oracle import Key, candles_of, stored
from servers.free_ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from ashi.contracts.candle import Candle

pytestmark = pytest.mark.kafka

MINUTE = 60_000_000
MARKETS = ["binance:BTCUSDT", "binance:ETHUSDT"]
ENDS_WITHIN_S = 20.0
"""All of it, after Ctrl-C. It takes two seconds where nothing else runs."""


def now_us() -> int:
    return time.time_ns() // 1000


def candles_in(workdir: Path, timeframe: str) -> list[Candle]:
    async def read() -> list[Candle]:
        async with open_reader(f"sqlite:///{workdir}/candles.db") as reader:
            return [candle for market in MARKETS for candle in [each async for each in reader.read(market, timeframe)]]

    return asyncio.run(read())


def wait_for_candles(up: Running, workdir: Path, until_us: int) -> None:
    """Until both markets have a candle of a second that ends at that time or later."""
    deadline = time.monotonic() + WAIT_S
    while True:
        assert up.process.poll() is None, up.said()[-3000:]
        if (workdir / "candles.db").exists():
            newest = {candle.symbol: candle.close_time for candle in candles_in(workdir, "1s")}
            if len(newest) == len(MARKETS) and min(newest.values()) >= until_us:
                return
        assert time.monotonic() < deadline, f"no candles up to {until_us}: {up.said()[-3000:]}"
        time.sleep(0.2)


def truth(begin_us: int, end_us: int) -> list[Any]:
    """What the simulated exchange has traded in that time, whoever was there to see it."""
    source = OngoingMarkets("binance", [name.partition(":")[2] for name in MARKETS], seed=0, rate=ONGOING_RATE)
    source.start(end_us * PER_US)
    histories = [source.history(name.partition(":")[2]) for name in MARKETS]
    return [trade for history in histories for trade in history.truth(begin_us) if trade.traded_at < end_us]


def test_all_of_it_is_killed_and_started_again_and_no_trade_of_the_exchange_is_missing(tmp_path: Path) -> None:
    workdir, port, begin = tmp_path / "kept", free_port(), (now_us() // MINUTE - 2) * MINUTE
    options = ["up", "--simulate", "--workdir", str(workdir), "--port", str(port), "--timeframes", "1s,1m"]
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begin / 1e6))
    with Running(tmp_path / "first.log", *options, *MARKETS, "--since", since) as first:
        first.wait_for(f"the chart: http://127.0.0.1:{port}/\n")
        assert "reading binance:BTCUSDT, binance:ETHUSDT, simulated\n" in first.said()
        with Running(tmp_path / "second.log", *options) as second:
            assert second.process.wait(WAIT_S) == 2
            assert f"another `ashi up` is running in {workdir}" in second.said()
        wait_for_candles(first, workdir, now_us())
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page:
            assert page.status == 200

        first.child("sink").kill()
        first.wait_for("stage sink-sqlite was killed by SIGKILL; it is started again in 1 s")
        first.child("kafka.Kafka").kill()
        first.wait_for("stage broker was killed by SIGKILL; it is started again")
        first.wait_for("Kafka is ready on", 2)
        wait_for_candles(first, workdir, now_us())

        everything = first.children()
        for child in everything:
            child.kill()
        first.process.kill()
        first.process.wait()
        assert_gone(everything)
    left = candles_in(workdir, "1s")
    time.sleep(3)  # the exchange trades on meanwhile

    with Running(tmp_path / "third.log", "up", "--simulate", "--workdir", str(workdir), "--port", str(port)) as third:
        third.wait_for("going on with binance:BTCUSDT, binance:ETHUSDT, simulated\n")
        end = now_us() // 1_000_000 * 1_000_000
        wait_for_candles(third, workdir, end)
        everything = third.children()
        assert third.end(signal.SIGINT, ENDS_WITHIN_S) == 0
        assert "all of it has ended; the next `ashi up` goes on from here" in third.said()
        assert_gone(everything)

    def until_the_end(candles: dict[Key, Any]) -> dict[Key, Any]:
        return {key: value for key, value in candles.items() if value["close_time"] <= end}

    found = candles_in(workdir, "1s") + candles_in(workdir, "1m")
    assert {(candle.symbol, candle.open_time) for candle in left} <= {(each.symbol, each.open_time) for each in found}
    traded = [candle for candle in found if candle.trade_count]
    assert until_the_end(stored(traded)) == until_the_end(candles_of(truth(begin, end), ["1s", "1m"]))


def test_a_wrong_name_is_told_before_anything_starts_and_a_right_one_is_read_until_ctrl_c(
    tmp_path: Path,
) -> None:
    kept = tmp_path / "kept"
    options = ["--timeframes", "1s", "--port", str(free_port()), "--workdir", str(kept)]
    with Running(tmp_path / "venue.log", "venue-sim", "bitflyer", "BTC_JPY", "--rate", "50") as venue:
        venue.wait_for("export ASHI_REST_URL=")
        lines = [line.removeprefix("export ") for line in venue.said().splitlines() if line.startswith("export ")]
        addresses = dict(line.split("=", 1) for line in lines)
        with Running(tmp_path / "wrong.log", "up", "bitflyer:BTC_YEN", *options, **addresses) as wrong:
            assert wrong.process.wait(WAIT_S) == 2
        assert wrong.said() == "ashi: bitflyer has no market BTC_YEN; did you mean BTC_JPY?\n"
        assert not kept.exists()
        with Running(tmp_path / "up.log", "up", "bitflyer:BTC_JPY", *options, **addresses) as up:
            up.wait_for("bitflyer:BTC_JPY is connected")
            everything = up.children()
            assert up.end(signal.SIGINT, ENDS_WITHIN_S) == 0
            assert_gone(everything)


def test_a_stage_that_cannot_run_ends_all_of_it_with_its_last_words(tmp_path: Path) -> None:
    port = free_port()
    with Running(tmp_path / "up.log", "up", "--simulate", "--workdir", str(tmp_path), "--port", str(port)) as up:
        up.wait_for("starting Apache Kafka")  # after its port was found to be free
        with socket.socket() as thief:  # somebody takes the port before the chart does
            thief.bind(("127.0.0.1", port))
            thief.listen()
            assert up.process.wait(WAIT_S) == 1
    assert "ashi: stage chart ended with status 2 and would do so again" in up.said()
    assert f"{port}" in up.said().rpartition("ends with:")[2]
