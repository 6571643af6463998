"""Scripts of faults, recordings that happen again, and the simulator as a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from simulated import (
    EVERY_VENUE,
    MARKETS,
    by_ashi,
    by_bytes,
    client,
    run,
    simulator,
    subscription,
    trade,
    until,
)
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from ashi.contracts.errors import UsageError
from ashi.contracts.trade import Trade
from ashi_cli.recorded_trades import read_trades
from ashi_ingest.recording.bundled import BUNDLED
from ashi_ingest.recording.own_lines import own_line, repaired_lines
from ashi_simulator import (
    Simulator,
    Step,
    TrueTrade,
    possible_faults,
    random_script,
    read_script,
)
from ashi_simulator.markets.recorded import RecordedMarket
from samples import published_files

# Scripts


def test_a_script_is_performed_by_time_and_by_trades() -> None:
    async def test() -> None:
        script = [
            Step("error_frame", {"text": '"late"'}, at_s=0.3),
            Step("error_frame", {"text": '"soon"'}, at_s=0.1),
            Step("error_frame", {"text": '"counted"'}, after_trades=1500),
        ]
        async with simulator("binance", script=script) as sim, client(sim) as reader:
            assert not sim.script_done
            begun = time.monotonic()
            sim.start_market()
            await until(lambda: sim.script_done)
            assert time.monotonic() - begun >= 0.3
            assert sim.trades >= 1500
            await reader.settle()
            assert [message for message in reader.messages if isinstance(message, str)] == ["soon", "late", "counted"]
            assert [name for name, _ in sim.faults_done] == ["error_frame"] * 3

    run(test())


def test_a_script_is_read_from_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text(
        '{"at_s": 2.5, "fault": "drop", "args": {"connections": "one"}}\n\n{"after_trades": 9, "fault": "skip"}'
    )
    assert read_script(path) == [
        Step("drop", {"connections": "one"}, at_s=2.5),
        Step("skip", after_trades=9),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"fault": "drop"}',
        '{"fault": "drop", "at_s": -1}',
        '{"fault": "drop", "at_s": "1"}',
        '{"fault": "drop", "at_s": 1, "after_trades": 1}',
        '{"fault": "drop", "at_s": 1, "args": []}',
        '{"fault": "drop", "when": 1}',
        '{"at_s": 1}',
    ],
)
def test_a_wrong_line_of_a_script_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text('{"at_s": 1, "fault": "drop"}\n' + line)
    with pytest.raises(UsageError, match=r"script\.jsonl:2: .*Write lines such as"):
        read_script(path)


def test_a_script_that_makes_no_sense_at_the_venue_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="gmo has no trade ids"):
        Simulator("gmo", ["BTC"], script=[Step("duplicate", at_s=1)])


@EVERY_VENUE
def test_a_random_script_is_the_same_for_a_seed_and_holds_every_fault(venue: str) -> None:
    script = random_script(7, 50, venue)
    assert script == random_script(7, 50, venue)
    assert script != random_script(8, 50, venue)
    assert len(script) == 50
    counts = Counter(step.fault for step in script)
    assert set(counts) == set(possible_faults(venue, MARKETS[venue]))
    assert max(counts.values()) - min(counts.values()) <= 1
    assert 40 <= (script[-1].at_s or 0) <= 60
    Simulator(venue, MARKETS[venue], script=script)  # which checks it


@EVERY_VENUE
@pytest.mark.slow
def test_under_fifty_random_faults_the_market_goes_on(venue: str) -> None:
    async def test() -> None:
        script = random_script(1, 50, venue, MARKETS[venue], every_s=0.04)
        async with simulator(venue, script=script) as sim:
            sim.start_market()
            while not sim.script_done:
                with contextlib.suppress(OSError, ConnectionClosed, InvalidHandshake, TimeoutError):
                    async with asyncio.timeout(0.3), connect(sim.websocket_url, close_timeout=0.1) as ws:
                        for market in sim.markets:
                            await ws.send(subscription(venue, market))
                        while not sim.script_done:
                            await ws.recv(decode=False)
                await asyncio.sleep(0.01)
            assert len(sim.faults_done) == 50
            count = sim.trades
            await until(lambda: sim.trades > count)
            await sim.stop_market()
            truth = sim.truth()
            assert len({(each.symbol, each.trade_id) for each in truth}) == len(truth) > 0.9 * sim.trades

    run(test())


# Recordings


@pytest.mark.parametrize("venue", ["bitflyer", "binance"])
def test_a_recording_happens_again_now(venue: str) -> None:
    recorded = read_trades(venue, BUNDLED[venue][:1])

    async def test() -> None:
        before = time.time_ns() // 1000
        speed = 300.0
        async with Simulator(venue, trades=recorded, speed=speed) as sim, client(sim, *sim.markets) as reader:
            sim.start_market()
            await until(lambda: sim.trades == len(recorded))
            await sim.stop_market()
            await reader.settle()
            truth = sim.truth()
            assert by_ashi(venue, reader.frames) == Counter(truth)
            assert Counter(each[:5] for each in truth) == Counter(
                (each.symbol, each.trade_id, each.price, each.size, each.side) for each in recorded
            )
            span = max(each.traded_at for each in recorded) - min(each.traded_at for each in recorded)
            again = max(each.traded_at for each in truth) - min(each.traded_at for each in truth)
            assert again == pytest.approx(span / speed, abs=3000)
            assert min(each.traded_at for each in truth) > before - 1_000_000

    run(test())


def test_a_file_of_trades_is_read_as_a_recording_is(tmp_path: Path) -> None:
    recording = BUNDLED["binance"][1]
    trades = read_trades("binance", [recording])
    (path := tmp_path / "ETHUSDT-trades-2024-08-09.csv").write_bytes(published_files.spot(trades))
    assert read_trades("binance", [path]) == published_files.as_of_file(trades)


def test_a_recording_goes_on_after_a_pause_and_only_with_the_markets_asked_for() -> None:
    recorded = read_trades("bitflyer", BUNDLED["bitflyer"])

    async def test() -> None:
        async with Simulator("bitflyer", ["FX_BTC_JPY"], trades=recorded, speed=100) as sim:
            await trade(sim, 20)
            happened = sim.trades
            await asyncio.sleep(0.2)
            sim.start_market()
            assert sim.trades - happened < 100
            await until(lambda: sim.trades > happened)
            assert {each.symbol for each in sim.truth()} == {"bitflyer:FX_BTC_JPY"}

    run(test())


@pytest.mark.parametrize("venue", ["bitflyer", "gmo"])
def test_what_was_fetched_happens_when_it_happened_and_rest_serves_it(tmp_path: Path, venue: str) -> None:
    """Three trades came, a fourth and a copy over the next connection, and REST brought the two between."""
    at = 1_700_000_000_000_000
    market = "BTC_JPY"

    def trade_of(number: int) -> Trade:
        us = at + number * 200_000
        ordinal, name = (number, str(number)) if venue == "bitflyer" else (0, f"{us // 1000}-5-1-BUY-0")
        return Trade(f"{venue}:{market}", name, Decimal(5), Decimal(1), "buy", us, at + 900_000_000, ordinal)

    def frame(number: int) -> bytes:
        at_text = datetime.fromtimestamp(trade_of(number).traded_at / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        if venue == "gmo":
            pushed = {"channel": "trades", "price": "5", "side": "BUY", "size": "1", "symbol": market}
            return json.dumps(pushed | {"timestamp": f"{at_text}Z"}).encode()
        execution = {"id": number, "side": "BUY", "price": 5, "size": 1, "exec_date": f"{at_text}Z"}
        params = {"channel": f"lightning_executions_{market}", "message": [execution]}
        return json.dumps({"jsonrpc": "2.0", "method": "channelMessage", "params": params}).encode()

    ((_, fetched),) = repaired_lines([trade_of(number) for number in (2, 3, 4)])
    symbol, first, second = f"{venue}:{market}", own_line("connection", "a-1"), own_line("connection", "a-2")
    frames = [first, *map(frame, (0, 1, 2)), own_line("waits", symbol), second, frame(2), frame(5), fetched]
    recording = tmp_path / "recording"
    recording.write_bytes(b"".join(b"%d000 %b\n" % (at + n, frame) for n, frame in enumerate(frames)))
    trades = read_trades(venue, [recording])
    assert [(each.traded_at - at) // 200_000 for each in trades] == [0, 1, 2, 3, 4, 5]
    happening = RecordedMarket(venue, trades, speed=1.0)
    happening.start(0)
    due = [
        [each for batch in happening.due(int(seconds * 10**7)) for each in batch.executions]
        for seconds in (0.7, 0.9, 1)
    ]
    assert [len(executions) for executions in due] == [4, 1, 1]

    async def test() -> None:
        async with Simulator(venue, [market], trades=trades, speed=10) as simulator:
            simulator.start_market()
            await until(lambda: len(simulator.truth()) == 6)
            times = [each.traded_at for each in simulator.truth()]
            assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([20_000] * 5, abs=1500)
            path = "/v1/getexecutions?product_code=" if venue == "bitflyer" else "/public/v1/trades?symbol="
            async with aiohttp.ClientSession() as session, session.get(simulator.rest_url + path + market) as answer:
                listed = await answer.json()
            assert len(listed if venue == "bitflyer" else listed["data"]["list"]) == (6 if venue == "bitflyer" else 12)

    run(test())


def test_a_recording_of_another_venue_or_without_the_market_is_refused() -> None:
    with pytest.raises(UsageError, match="is not a recording of binance but of bitflyer"):
        read_trades("binance", BUNDLED["bitflyer"])
    with pytest.raises(UsageError, match="nothing of NO_SUCH was recorded; there is"):
        Simulator("bitflyer", ["NO_SUCH"], trades=read_trades("bitflyer", BUNDLED["bitflyer"]))


# As a process


@pytest.mark.processes
def test_it_shares_nothing_with_the_parsers_it_tests() -> None:
    check = "import sys, ashi_simulator; sys.exit(any(name.startswith('ashi_ingest') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", check], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_what_cannot_be_simulated_is_said() -> None:
    with pytest.raises(UsageError, match="venue 'mtgox' cannot be simulated: choose one of bitflyer, gmo"):
        Simulator("mtgox", ["BTC"])
    with pytest.raises(UsageError, match="name the markets of gmo"):
        Simulator("gmo")


def test_a_port_that_is_taken_is_said() -> None:
    async def test() -> None:
        async with simulator("gmo") as sim:
            port = int(sim.rest_url.rpartition(":")[2])
            with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 is taken"):
                async with simulator("gmo", port=port):
                    pass

    run(test())


PROCESS = """
import asyncio
from pathlib import Path
from ashi_simulator import VenueSimOptions, run_venue_sim
asyncio.run(run_venue_sim(VenueSimOptions(**{options})))
"""


@contextlib.contextmanager
def process(**options: Any) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        [sys.executable, "-c", PROCESS.format(options=options)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def urls(started: subprocess.Popen[str]) -> tuple[str, str]:
    """What it says of itself, to the last line."""
    assert started.stdout is not None
    said = ""
    while "/sim/limits" not in said:
        line = started.stdout.readline()
        assert line, said
        said += line
    found = dict(re.findall(r"export (ASHI_\w+)=(\S+)", said))
    return found["ASHI_WEBSOCKET_URL"], found["ASHI_REST_URL"]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.processes
def test_as_a_process_it_says_where_it_is_obeys_over_http_and_stops_on_a_signal(stop: signal.Signals) -> None:
    async def ask(websocket: str, rest: str) -> None:
        async with aiohttp.ClientSession(rest) as session, connect(websocket, max_queue=None) as ws:
            await ws.send(subscription("binance", "BTCUSDT"))
            await ws.send(subscription("binance", "ETHUSDT"))
            frames = [await ws.recv(decode=False) for _ in range(50)]
            async with session.post("/sim/market", json={"trading": False}) as answered:
                assert await answered.json() == {"trading": False}
            waiter = await ws.ping()
            await waiter
            async with session.get("/sim/truth") as answered:
                lines = [json.loads(line) for line in (await answered.text()).splitlines()]
            with contextlib.suppress(TimeoutError):
                while len(frames) < len(lines) + 2:
                    frames.append(await asyncio.wait_for(ws.recv(decode=False), 5))
            truth = Counter(
                TrueTrade(**line | {"price": Decimal(line["price"]), "size": Decimal(line["size"])}) for line in lines
            )
            assert by_ashi("binance", frames) == truth
            async with session.get("/sim/state") as answered:
                state = await answered.json()
            assert state["trading"] is False
            assert state["trades"] == len(lines)
            assert sorted(state["subscribed"]) == ["BTCUSDT", "ETHUSDT"]
            async with session.post("/sim/fault", json={"fault": "dorp"}) as answered:
                assert answered.status == 400
                assert "choose one of drop" in (await answered.json())["error"]
            async with session.post("/sim/fault", data="nonsense") as answered:
                assert answered.status == 400
            async with session.post("/sim/fault", json={"fault": "drop", "args": {"connections": "all"}}) as answered:
                assert answered.status == 200
            with pytest.raises(ConnectionClosed):
                await ws.recv()
            async with session.get("/sim/limits") as answered:
                assert (await answered.json())["subscribe_messages"] == 2

    with process(venue="binance", markets=("BTCUSDT", "ETHUSDT"), rate=500.0, starts="when-subscribed") as started:
        run(ask(*urls(started)))
        started.send_signal(stop)
        assert started.wait(timeout=60) == 0


@pytest.mark.processes
def test_as_a_process_it_trades_only_when_told_to() -> None:
    async def ask(rest: str) -> None:
        async with aiohttp.ClientSession(rest) as session:
            async with session.get("/sim/state") as answered:
                assert (await answered.json())["trades"] == 0
            async with session.post("/sim/market", json={"trading": True}) as answered:
                assert answered.status == 200
            trades = 0
            while not trades:
                async with session.get("/sim/state") as answered:
                    trades = (await answered.json())["trades"]

    with process(venue="gmo", starts="when-told", random_faults=3, seed=2) as started:
        run(ask(urls(started)[1]))
        started.send_signal(signal.SIGTERM)
        assert started.wait(timeout=60) == 0


def test_twenty_thousand_trades_a_second_take_a_fraction_of_a_core() -> None:
    """Measured in processor time, so that it holds on a busy machine. The client, who only counts bytes, is in it."""

    async def test() -> None:
        async with simulator("binance", rate=20_000) as sim:
            reader, writer = await by_bytes(sim)
            for market in sim.markets:
                payload = subscription("binance", market).encode()
                writer.write(bytes((0x81, 0x80 | len(payload))) + bytes(4) + payload)
            await sim.wait_subscribed()
            received = 0

            async def count() -> None:
                nonlocal received
                while data := await reader.read(2**20):
                    received += len(data)

            counting = asyncio.create_task(count())
            begun = time.process_time()
            await trade(sim, 20_000)
            assert time.process_time() - begun < 0.8
            await until(lambda: received > 150 * 20_000)
            counting.cancel()
            writer.close()

    run(test())


@pytest.mark.processes
def test_a_recording_is_read_by_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "ashi_cli.main", "venue-sim"]

    def refusal(*arguments: str) -> tuple[int, str]:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=30, check=False)
        return done.returncode, done.stderr

    recording = str(BUNDLED["bitflyer"][0])
    assert refusal("mtgox", "--recording", recording) == (
        2,
        "ashi: venue 'mtgox' cannot be simulated: choose one of bitflyer, gmo, binance, binance-usdm\n",
    )
    status, error = refusal("gmo", "--recording", recording)
    assert (status, error) == (2, f"ashi: {recording} is not a recording of gmo but of bitflyer: name that venue\n")
    status, error = refusal("gmo", "--recording", str(tmp_path / "none.gz"))
    assert status == 2
    assert "none.gz: there is no such file" in error
