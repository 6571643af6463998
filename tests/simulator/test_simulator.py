"""The venue simulator against clients that know nothing of Ashi but its parsers."""

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
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from ashi.contracts.errors import UsageError
from ashi_cli.recorded_trades import read_trades
from ashi_ingest.recording.bundled import BUNDLED
from ashi_ingest.venues.registry import VENUES
from ashi_simulator import (
    FAULTS,
    RULES,
    Rules,
    Simulator,
    Step,
    TrueTrade,
    possible_faults,
    random_script,
    read_script,
)
from ashi_simulator.executions import PER_MS, Execution, TradeHistory
from ashi_simulator.markets.synthetic import SyntheticMarket
from ashi_simulator.notation import pushed_date, rest_date, scientific

MARKETS = {
    "bitflyer": ("BTC_JPY", "FX_BTC_JPY", "ETH_JPY"),
    "gmo": ("BTC", "BTC_JPY"),
    "binance": ("BTCUSDT", "ETHUSDT"),
    "binance-usdm": ("BTCUSDT", "ETHUSDT"),
}
EVERY_VENUE = pytest.mark.parametrize("venue", MARKETS)
HASTY = {venue: replace(rules, subscribe_interval_s=None, messages_per_s=None) for venue, rules in RULES.items()}
"""Without limits on messages, where a test has more to do than to wait."""


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  (conditions of all kinds)
        await asyncio.sleep(0.005)


def subscription(venue: str, market: str, number: int = 1) -> str:
    match venue:
        case "bitflyer":
            return json.dumps(
                {"method": "subscribe", "params": {"channel": f"lightning_executions_{market}"}, "id": number}
            )
        case "gmo":
            return json.dumps({"command": "subscribe", "channel": "trades", "symbol": market, "option": "TAKER_ONLY"})
        case _:
            return json.dumps({"method": "SUBSCRIBE", "params": [f"{market.lower()}@trade"], "id": number})


class Client:
    """A websocket and all that came over it."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.frames: list[bytes] = []
        self.closed: ConnectionClosed | None = None
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while True:
                self.frames.append(await self.ws.recv(decode=False))
        except ConnectionClosed as closed:
            self.closed = closed

    async def settle(self) -> None:
        """All that was sent before has come when a ping has been answered."""
        for _ in range(2):
            await (await self.ws.ping())

    async def ended(self) -> ConnectionClosed:
        await self._reading
        assert self.closed is not None
        return self.closed

    @property
    def messages(self) -> list[Any]:
        return [json.loads(frame) for frame in self.frames]


@contextlib.asynccontextmanager
async def client(sim: Simulator, *markets: str, path: str | None = None) -> AsyncIterator[Client]:
    """Connected and subscribed to `markets`."""
    url = sim.websocket_url if path is None else sim.rest_url.replace("http", "ws") + path
    async with connect(url, max_queue=None, close_timeout=1, ping_interval=None) as ws:
        joined = Client(ws)
        for number, market in enumerate(markets):
            await ws.send(subscription(sim.venue, market, number))
        await sim.wait_subscribed(markets)
        yield joined


def simulator(venue: str, **options: Any) -> Simulator:
    options.setdefault("rules", HASTY[venue])
    options.setdefault("rate", 2000)
    return Simulator(venue, options.pop("markets", MARKETS[venue]), **options)


async def trade(sim: Simulator, amount: int) -> None:
    """Let so many more executions happen."""
    target = sim.trades + amount
    sim.start_market()
    await until(lambda: sim.trades >= target)
    await sim.stop_market()


async def get(sim: Simulator, path: str, headers: dict[str, str] | None = None, **parameters: Any) -> Any:
    status, body, _ = await answer(sim, path, headers, **parameters)
    assert status == 200, body
    return body


async def answer(
    sim: Simulator, path: str, headers: dict[str, str] | None = None, **parameters: Any
) -> tuple[int, Any, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(sim.rest_url + path, params=parameters, headers=headers) as response,
    ):
        return response.status, json.loads(await response.text()), response.headers


def by_ashi(venue: str, frames: list[bytes]) -> Counter[TrueTrade]:
    """What Ashi's own parser reads of the frames; none of them may be unreadable to it."""
    parser = VENUES[venue].parser()
    trades = []
    for frame in frames:
        parsed = parser.parse(frame, time.time_ns() // 1000)
        assert parsed.rejected == []
        trades += parsed.trades
    return Counter(
        TrueTrade(each.symbol, each.trade_id, each.price, each.size, each.side, each.traded_at, each.sequence)
        for each in trades
    )


Row = tuple[str, Decimal, Decimal, str | None, int]


def ms_of(text: str) -> int:
    """Milliseconds of a time with any number of fraction digits, with or without Z."""
    second, _, fraction = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(second).replace(tzinfo=UTC).timestamp()) * 1000 + int(fraction[:3].ljust(3, "0"))


def by_hand(venue: str, frames: list[bytes]) -> Counter[Row]:
    """What the frames say, read as the venues' documentation has them: market, price, size, side, ms."""
    rows: list[Row] = []
    for frame in frames:
        message = json.loads(frame, parse_float=Decimal, parse_int=int)
        match venue:
            case "bitflyer" if message.get("method") == "channelMessage":
                assert message["jsonrpc"] == "2.0"
                market = message["params"]["channel"].removeprefix("lightning_executions_")
                for execution in message["params"]["message"]:
                    side = {"BUY": "buy", "SELL": "sell", "": None}[execution["side"]]
                    assert isinstance(execution["price"], Decimal)
                    rows.append(
                        (
                            market,
                            execution["price"],
                            Decimal(execution["size"]),
                            side,
                            ms_of(execution["exec_date"]),
                        )
                    )
            case "gmo":
                assert set(message) == {"channel", "price", "side", "size", "symbol", "timestamp"}
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", message["timestamp"])
                rows.append(
                    (
                        message["symbol"],
                        Decimal(message["price"]),
                        Decimal(message["size"]),
                        message["side"].lower(),
                        ms_of(message["timestamp"]),
                    )
                )
            case "binance" | "binance-usdm" if "stream" in message:
                event = message["data"]
                assert message["stream"] == f"{event['s'].lower()}@trade"
                assert event["e"] == "trade"
                if event.get("X", "MARKET") == "MARKET":
                    side = "sell" if event["m"] else "buy"
                    rows.append((event["s"], Decimal(event["p"]), Decimal(event["q"]), side, event["T"]))
    return Counter(rows)


def rows_of(truth: list[TrueTrade]) -> Counter[Row]:
    return Counter(
        (each.symbol.partition(":")[2], each.price, each.size, each.side, each.traded_at // 1000) for each in truth
    )


# What is pushed


@EVERY_VENUE
def test_what_a_venue_pushes_is_the_truth_to_a_plain_reader_and_to_ashis_parser(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            await trade(sim, 2000)
            await reader.settle()
            truth = sim.truth()
            assert len(truth) >= 1900
            assert by_hand(venue, reader.frames) == rows_of(truth)
            assert by_ashi(venue, reader.frames) == Counter(truth)
            assert {each.symbol for each in truth} == {f"{venue}:{market}" for market in sim.markets}

    run(test())


@EVERY_VENUE
def test_the_market_is_still_until_it_is_started(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue, rate=10_000) as sim, client(sim, *sim.markets) as reader:
            await asyncio.sleep(0.05)
            assert sim.trades == 0
            assert sim.truth() == []
            await trade(sim, 100)
            happened = sim.trades
            await asyncio.sleep(0.05)
            assert sim.trades == happened
            await reader.settle()
            assert by_ashi(venue, reader.frames) == Counter(sim.truth())

    run(test())


@EVERY_VENUE
def test_only_what_is_subscribed_to_is_pushed(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, sim.markets[0]) as reader:
            await trade(sim, 300)
            await reader.settle()
            assert by_ashi(venue, reader.frames) == Counter(sim.truth(markets=[sim.markets[0]]))
            assert sim.truth(markets=[sim.markets[1]])

    run(test())


@EVERY_VENUE
def test_the_same_seed_trades_the_same(venue: str) -> None:
    def trades(seed: int) -> list[Any]:
        market = SyntheticMarket(venue, MARKETS[venue], seed=seed, rate=5000, bursts=True)
        market.start(10**16)
        return [batch for step in range(1, 200) for batch in market.due(10**16 + step * 40_000)]

    assert trades(3) == trades(3)
    assert trades(3) != trades(4)


def test_the_truth_since_a_time_leaves_out_what_was_before() -> None:
    async def test() -> None:
        async with simulator("gmo") as sim:
            await trade(sim, 500)
            truth = sim.truth()
            middle = sorted(each.traded_at for each in truth)[len(truth) // 2]
            assert sim.truth(middle) == [each for each in truth if each.traded_at >= middle]

    run(test())


def test_a_constant_rate_is_kept() -> None:
    market = SyntheticMarket("binance", ["BTCUSDT"], seed=1, rate=20_000, bursts=False)
    market.start(10**16)
    for step in range(1, 101):
        amount = sum(len(batch.executions) for batch in market.due(10**16 + step * 100_000))
        assert amount == pytest.approx(200, abs=1)


def test_bursts_are_five_times_the_rate() -> None:
    market = SyntheticMarket("binance", ["BTCUSDT"], seed=1, rate=10_000, bursts=True)
    market.start(10**16)
    amounts = Counter(
        round(sum(len(batch.executions) for batch in market.due(10**16 + step * 100_000)), -1)
        for step in range(1, 3001)
    )
    assert set(amounts) == {100, 500}
    assert amounts[100] > amounts[500]


# What is subtle about each


def executions_of(venue: str, markets: tuple[str, ...], amount: int) -> Iterator[tuple[str, list[Execution]]]:
    market = SyntheticMarket(venue, markets, seed=5, rate=10_000, bursts=False)
    market.start(16_000_000_000_000_000)
    for step in range(1, amount // 100 + 1):
        for batch in market.due(16_000_000_000_000_000 + step * 100_000):
            yield batch.market, batch.executions


@EVERY_VENUE
def test_real_trades_agree_in_every_field_and_sizes_are_as_small_as_can_be(venue: str) -> None:
    seen: Counter[tuple[Any, ...]] = Counter()
    smallest = Decimal(1)
    for market, executions in executions_of(venue, MARKETS[venue], 20_000):
        for execution in executions:
            smallest = min(smallest, Decimal(execution.size) or smallest)
            seen[market, execution.at // PER_MS, execution.price, execution.size, execution.taker] += 1
    assert max(seen.values()) >= 3
    assert smallest == Decimal("0.00000001")


def test_spot_markets_of_bitflyer_share_one_sequence_and_its_fx_market_jumps_by_thousands() -> None:
    numbers: dict[str, list[int]] = {}
    for market, executions in executions_of("bitflyer", MARKETS["bitflyer"], 60_000):
        assert len(executions) <= 17
        numbers.setdefault("FX" if market == "FX_BTC_JPY" else "spot", []).extend(each.number for each in executions)
        numbers.setdefault(market, []).extend(each.number for each in executions)
    for sequence in numbers.values():
        assert all(before < after for before, after in pairwise(sequence))
    assert not set(numbers["BTC_JPY"]) & set(numbers["ETH_JPY"])
    steps = Counter(after - before for before, after in pairwise(numbers["FX"]))
    jumps = [step for step in steps if step != 1]
    assert jumps
    assert all(1000 <= jump <= 10_001 for jump in jumps)
    assert len(jumps) < 0.001 * len(numbers["FX"])


def test_bitflyers_times_are_not_in_the_order_of_ids_and_auctions_have_no_taker() -> None:
    inversions = 0
    largest = 0
    auctions = 0
    previous = 0
    for market, executions in executions_of("bitflyer", ("FX_BTC_JPY",), 20_000):
        assert market == "FX_BTC_JPY"
        largest = max(largest, len(executions))
        for execution in executions:
            inversions += execution.at // PER_MS < previous
            previous = execution.at // PER_MS
            auctions += execution.taker == ""
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6,7}Z", pushed_date(execution.at))
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?", rest_date(execution.at))
            assert ms_of(pushed_date(execution.at)) == ms_of(rest_date(execution.at)) == execution.at // PER_MS
    assert inversions > 50
    assert auctions > 10
    assert largest == 17


def test_both_six_and_seven_digits_and_none_to_three_digits_come() -> None:
    ats = [each.at for _, batch in executions_of("bitflyer", ("BTC_JPY",), 20_000) for each in batch]
    assert {len(pushed_date(at).partition(".")[2]) - 1 for at in ats} == {6, 7}
    assert {len(rest_date(at).partition(".")[2]) for at in ats} == {0, 1, 2, 3}


@given(st.integers(0, 10**12), st.integers(0, 18))
def test_scientific_notation_is_the_same_number(digits: int, places: int) -> None:
    plain = format(Decimal(digits).scaleb(-places), "f")
    assert Decimal(scientific(plain)) == Decimal(plain)


def test_the_smallest_size_is_written_as_bitflyer_does() -> None:
    assert scientific("0.00000001") == "1e-08"
    assert scientific("0.00001234") == "1.234e-05"
    assert scientific("0.01") == "0.01"


def test_without_taker_only_gmo_sends_both_rows_of_every_execution() -> None:
    async def test() -> None:
        async with simulator("gmo", markets=["BTC"]) as sim, client(sim) as reader:
            await reader.ws.send(json.dumps({"command": "subscribe", "channel": "trades", "symbol": "BTC"}))
            await sim.wait_subscribed()
            await trade(sim, 300)
            await reader.settle()
            messages = reader.messages
            truth = sim.truth()
            assert len(messages) == 2 * len(truth)
            for taker, other in zip(messages[::2], messages[1::2], strict=True):
                assert {taker.pop("side"), other.pop("side")} == {"BUY", "SELL"}
                assert taker == other
            assert [message["side"].lower() for message in json_rows(reader.frames[::2])] == [
                each.side for each in truth
            ]

    run(test())


def json_rows(frames: list[bytes]) -> list[Any]:
    return [json.loads(frame) for frame in frames]


def test_trades_outside_the_order_book_are_pushed_and_have_ids_and_exist_nowhere_else() -> None:
    async def test() -> None:
        async with simulator("binance-usdm", markets=["BTCUSDT"]) as sim, client(sim, "BTCUSDT") as reader:
            await trade(sim, 2500)
            await reader.settle()
            events = [message["data"] for message in reader.messages if "data" in message]
            kinds = Counter(event["X"] for event in events)
            assert kinds["NA"]
            assert kinds["INSURANCE_FUND"]
            numbers = [event["t"] for event in events]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            market = [event["t"] for event in events if event["X"] == "MARKET"]
            assert [each.sequence for each in sim.truth()] == market
            rows = []
            while len(batch := await historical(sim, "BTCUSDT", rows[-1]["id"] + 1 if rows else 0)):
                rows += batch
            assert [row["id"] for row in rows] == market
            assert "isBestMatch" not in rows[0]

    run(test())


async def historical(sim: Simulator, market: str, first: int) -> list[Any]:
    base = "/fapi/v1" if sim.venue == "binance-usdm" else "/api/v3"
    parameters = {"symbol": market, "fromId": first, "limit": 1000}
    return await get(sim, f"{base}/historicalTrades", {"X-MBX-APIKEY": "any"}, **parameters)


# Subscriptions


def test_bitflyer_answers_what_has_an_id_and_refuses_unknown_channels() -> None:
    async def test() -> None:
        async with simulator("bitflyer") as sim, client(sim) as reader:
            await reader.ws.send(subscription("bitflyer", "BTC_JPY", 7))
            await reader.ws.send(subscription("bitflyer", "NO_SUCH", 8))
            await reader.ws.send('{"method":"subscribe","params":{"channel":"lightning_executions_ETH_JPY"}}')
            await reader.ws.send("{")
            await reader.settle()
            accepted, refused, broken = reader.messages
            assert accepted == {"jsonrpc": "2.0", "id": 7, "result": True}
            assert (refused["id"], refused["error"]["code"]) == (8, -32602)
            assert broken["error"]["code"] == -32700
            assert sim.subscribed == ["BTC_JPY", "ETH_JPY"]

    run(test())


def test_gmo_says_nothing_to_a_subscription_and_refuses_unknown_symbols() -> None:
    async def test() -> None:
        async with simulator("gmo") as sim, client(sim) as reader:
            await reader.ws.send(subscription("gmo", "BTC"))
            await reader.ws.send(subscription("gmo", "NO_SUCH"))
            await reader.settle()
            (refused,) = reader.messages
            assert refused["error"].startswith("ERR-5106")
            assert sim.subscribed == ["BTC"]

    run(test())


def test_binance_accepts_unknown_streams_in_silence() -> None:
    async def test() -> None:
        async with simulator("binance") as sim, client(sim) as reader:
            await reader.ws.send(subscription("binance", "NOSUCH", 3))
            await reader.ws.send(subscription("binance", "BTCUSDT", 4))
            await reader.ws.send('{"method":"LIST_SUBSCRIPTIONS","id":5}')
            await reader.settle()
            assert reader.messages == [
                {"result": None, "id": 3},
                {"result": None, "id": 4},
                {"result": ["btcusdt@trade"], "id": 5},
            ]

    run(test())


@pytest.mark.parametrize(
    ("path", "wrapped"),
    [("/ws/btcusdt@trade/ethusdt@trade", False), ("/stream?streams=btcusdt@trade/ethusdt@trade", True)],
)
def test_binance_reads_streams_from_the_address(path: str, wrapped: bool) -> None:
    async def test() -> None:
        async with simulator("binance") as sim, client(sim, path=path) as reader:
            await sim.wait_subscribed()
            await trade(sim, 50)
            await reader.settle()
            assert all(("stream" in message) == wrapped for message in reader.messages)
            assert by_ashi("binance", reader.frames) == Counter(sim.truth())

    run(test())


@pytest.mark.parametrize(
    ("venue", "message"),
    [
        ("bitflyer", {"method": "unsubscribe", "params": {"channel": "lightning_executions_BTC_JPY"}}),
        ("gmo", {"command": "unsubscribe", "channel": "trades", "symbol": "BTC"}),
        ("binance", {"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": 9}),
    ],
)
def test_after_unsubscribing_nothing_comes(venue: str, message: dict[str, Any]) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, MARKETS[venue][0]) as reader:
            await trade(sim, 50)
            await reader.ws.send(json.dumps(message))
            await until(lambda: not sim.subscribed)
            await reader.settle()
            count = len(by_ashi(venue, reader.frames))
            assert count
            await trade(sim, 50)
            await reader.settle()
            assert len(by_ashi(venue, reader.frames)) == count

    run(test())


# Limits


def test_the_sixth_message_within_a_second_ends_a_binance_connection() -> None:
    async def test() -> None:
        async with simulator("binance", rules=RULES["binance"]) as sim, client(sim) as reader:
            for number in range(4):
                await reader.ws.send(subscription("binance", "BTCUSDT", number))
            await reader.ws.ping()
            await until(lambda: len(reader.frames) == 4)
            assert sim.limits()["most_messages_per_s"] == 5
            await reader.ws.send(subscription("binance", "BTCUSDT", 5))
            closed = await reader.ended()
            assert closed.rcvd is not None
            assert closed.rcvd.code == 1008
            assert sim.limits()["message_violations"] == 1
            assert sim.limits()["most_streams"] == 1

    run(test())


def test_a_binance_connection_has_at_most_1024_streams() -> None:
    async def test() -> None:
        async with simulator("binance", rules=RULES["binance"]) as sim, client(sim) as reader:
            streams = [f"s{number}@trade" for number in range(1024)]
            await reader.ws.send(json.dumps({"method": "SUBSCRIBE", "params": streams, "id": 1}))
            await reader.ws.send(subscription("binance", "BTCUSDT", 2))
            await reader.settle()
            accepted, refused = reader.messages
            assert accepted == {"result": None, "id": 1}
            assert refused["id"] == 2
            assert refused["error"]["code"] == 4
            assert sim.subscribed == []
            assert sim.limits()["most_streams"] == 1024

    run(test())


def test_gmo_takes_one_subscription_a_second_from_an_address_whatever_the_connection() -> None:
    async def test() -> None:
        async with simulator("gmo", rules=RULES["gmo"]) as sim, client(sim) as one, client(sim) as other:
            await one.ws.send(subscription("gmo", "BTC"))
            await sim.wait_subscribed(["BTC"])
            await other.ws.send(subscription("gmo", "BTC_JPY"))
            await until(lambda: bool(other.frames))
            assert other.messages[0]["error"].startswith("ERR-5003")
            assert sim.subscribed == ["BTC"]
            await asyncio.sleep(1.01)  # the time is what is tested
            await other.ws.send(subscription("gmo", "BTC_JPY"))
            await sim.wait_subscribed(["BTC_JPY"])
            limits = sim.limits()
            assert limits["subscribe_messages"] == 3
            assert limits["subscribe_violations"] == 1
            assert limits["subscribe_least_interval_s"] < 0.9

    run(test())


def test_who_leaves_three_pings_unanswered_is_disconnected_and_who_answers_is_not() -> None:
    async def test() -> None:
        rules = Rules(ping_interval_s=0.1)
        async with simulator("gmo", rules=rules) as sim, client(sim) as lively, aiohttp.ClientSession() as session:
            deaf = await session.ws_connect(sim.websocket_url, autoping=False)
            pings = 0
            while (message := await deaf.receive()).type == aiohttp.WSMsgType.PING:
                pings += 1
            assert pings == 3
            assert message.type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
            assert sim.limits()["pongs_missed"] == 1
            await lively.settle()
            assert lively.closed is None

    run(test())


def test_binance_announces_the_end_of_a_connections_time() -> None:
    async def test() -> None:
        rules = replace(RULES["binance"], lifetime_s=0.4, notice_s=0.2)
        async with simulator("binance", rules=rules) as sim:
            begun = time.monotonic()
            async with client(sim, "BTCUSDT") as reader:
                closed = await reader.ended()
                assert closed.rcvd is not None
                assert time.monotonic() - begun >= 0.4
                assert reader.messages[-1]["e"] == "serverShutdown"

    run(test())


def test_an_address_may_open_only_so_many_connections() -> None:
    async def test() -> None:
        async with simulator("binance", rules=replace(RULES["binance"], connections=2)) as sim:
            async with client(sim), client(sim):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(sim.websocket_url)
            assert refused.value.response.status_code == 429
            assert sim.limits()["connections"] == 2
            assert sim.limits()["connections_refused"] == 1

    run(test())


def test_a_slow_reader_is_dropped() -> None:
    async def test() -> None:
        async with simulator("bitflyer", rate=40_000, rules=Rules(unread_bytes=10_000)) as sim:
            ws = await connect(sim.websocket_url, max_queue=1, ping_interval=None, close_timeout=0.1)
            for market in sim.markets:
                await ws.send(subscription("bitflyer", market))
            await sim.wait_subscribed()
            sim.start_market()
            await until(lambda: sim.limits()["slow_readers"] == 1)
            await until(lambda: sim.subscribed == [])
            ws.transport.abort()

    run(test())


def test_too_many_requests_are_answered_429_and_those_too_early_are_counted() -> None:
    async def test() -> None:
        async with simulator("bitflyer", rules=Rules(rest_weight=3, rest_window_s=1.0)) as sim:
            for _ in range(3):
                await get(sim, "/v1/getmarkets")
            status, _, headers = await answer(sim, "/v1/getmarkets")
            assert status == 429
            assert headers["Retry-After"] == "1"
            status, _, _ = await answer(sim, "/v1/getexecutions", product_code="BTC_JPY")
            assert status == 429
            limits = sim.limits()
            assert (limits["rest_requests"], limits["rest_refused"], limits["rest_too_early"]) == (5, 2, 1)
            assert limits["rest_most_weight"] == 3
            await asyncio.sleep(1.01)  # the time is what is tested
            await get(sim, "/v1/getmarkets")

    run(test())


def test_requests_weigh_what_the_venue_says() -> None:
    async def test() -> None:
        async with simulator("binance", rules=replace(RULES["binance"], rest_weight=50)) as sim:
            for used in ("25", "50"):
                _, _, headers = await answer(sim, "/api/v3/historicalTrades", symbol="BTCUSDT")
                assert headers["X-MBX-USED-WEIGHT-1M"] == used
            status, body, headers = await answer(sim, "/api/v3/exchangeInfo")
            assert (status, body["code"]) == (429, -1003)
            assert int(headers["Retry-After"]) > 50

    run(test())


def test_the_documented_limits_are_the_default() -> None:
    assert (RULES["bitflyer"].rest_weight, RULES["bitflyer"].rest_window_s) == (500, 300)
    assert RULES["gmo"].subscribe_interval_s == 1.0
    assert (RULES["gmo"].ping_interval_s, RULES["gmo"].missed_pongs) == (60, 3)
    for venue, weight in (("binance", 6000), ("binance-usdm", 2400)):
        rules = RULES[venue]
        assert (rules.messages_per_s, rules.streams, rules.lifetime_s, rules.notice_s) == (5, 1024, 86400, 600)
        assert (rules.rest_weight, rules.rest_window_s, rules.ping_interval_s) == (weight, 60, 20)
        assert (rules.connections, rules.connections_window_s) == (300, 300)


# REST


def test_bitflyers_executions_can_be_walked_backwards_and_are_the_truth() -> None:
    async def test() -> None:
        async with simulator("bitflyer") as sim:
            await trade(sim, 2000)
            for market in sim.markets:
                rows: list[Any] = []
                before: dict[str, int] = {}
                while batch := await get(sim, "/v1/getexecutions", product_code=market, count=100, **before):
                    assert len(batch) <= 100
                    rows += batch
                    before = {"before": batch[-1]["id"]}
                assert [row["id"] for row in rows] == sorted((row["id"] for row in rows), reverse=True)
                assert Counter((row["id"], row["side"], ms_of(row["exec_date"])) for row in rows) == Counter(
                    (each.sequence, (each.side or "").upper(), each.traded_at // 1000)
                    for each in sim.truth(markets=[market])
                )
                assert all(re.fullmatch(r"[^.Z]*(\.\d{1,3})?", row["exec_date"]) for row in rows)

    run(test())


def test_bitflyers_bounds_are_exclusive_and_the_newest_come_first() -> None:
    async def test() -> None:
        async with simulator("bitflyer", markets=["FX_BTC_JPY"]) as sim:
            await trade(sim, 800)
            numbers = [each.sequence for each in sim.truth()]
            low, high = numbers[100], numbers[300]
            between = await get(sim, "/v1/getexecutions", product_code="FX_BTC_JPY", count=500, after=low, before=high)
            assert [row["id"] for row in between] == numbers[101:300][::-1]
            newest = await get(sim, "/v1/getexecutions", product_code="FX_BTC_JPY", after=low)
            assert [row["id"] for row in newest] == numbers[-100:][::-1]
            assert len(await get(sim, "/v1/getexecutions", product_code="FX_BTC_JPY", count=9999)) == 500
            status, body, _ = await answer(sim, "/v1/getexecutions", product_code="NO_SUCH")
            assert (status, body["status"]) == (400, -100)
            listed = await get(sim, "/v1/getmarkets")
            assert listed == [{"product_code": "FX_BTC_JPY", "market_type": "FX"}]

    run(test())


def test_gmos_pages_hold_two_rows_an_execution_the_takers_first_when_read_from_the_oldest() -> None:
    async def test() -> None:
        async with simulator("gmo", markets=["BTC"]) as sim:
            await trade(sim, 333)
            rows: list[Any] = []
            page = 1
            while batch := (await pages(sim, page))["list"]:
                assert len(batch) <= 100
                rows += batch
                page += 1
            rows.reverse()
            truth = sim.truth()
            assert len(rows) == 2 * len(truth)
            assert [(row["side"].lower(), Decimal(row["price"]), ms_of(row["timestamp"])) for row in rows[::2]] == [
                (each.side, each.price, each.traded_at // 1000) for each in truth
            ]
            for taker, other in zip(rows[::2], rows[1::2], strict=True):
                assert {taker["side"], other["side"]} == {"BUY", "SELL"}
                assert taker | {"side": ""} == other | {"side": ""}

    run(test())


async def pages(sim: Simulator, page: int) -> Any:
    body = await get(sim, "/public/v1/trades", symbol="BTC", page=page, count=100)
    assert body["status"] == 0
    assert body["data"]["pagination"]["currentPage"] == page
    return body["data"]


def test_gmos_pages_shift_while_trades_arrive() -> None:
    async def test() -> None:
        async with simulator("gmo", markets=["BTC"]) as sim:
            await trade(sim, 200)
            before = (await pages(sim, 1))["list"]
            count = sim.trades
            await trade(sim, 10)
            shift = 2 * (sim.trades - count)
            after = (await pages(sim, 1))["list"] + (await pages(sim, 2))["list"]
            assert after[shift : shift + 100] == before

    run(test())


def test_gmo_answers_a_wrong_request_with_a_status_in_the_body() -> None:
    async def test() -> None:
        async with simulator("gmo") as sim:
            for parameters in ({"symbol": "NO_SUCH"}, {"symbol": "BTC", "page": "x"}):
                body = await get(sim, "/public/v1/trades", **parameters)
                assert (body["status"], body["messages"][0]["message_code"]) == (1, "ERR-5106")
            ticker = await get(sim, "/public/v1/ticker")
            assert [each["symbol"] for each in ticker["data"]] == ["BTC", "BTC_JPY"]

    run(test())


@pytest.mark.parametrize("venue", ["binance", "binance-usdm"])
def test_binances_old_trades_are_read_by_id_and_are_the_truth(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue, markets=["BTCUSDT"]) as sim:
            await trade(sim, 2500)
            truth = sim.truth()
            first = await historical(sim, "BTCUSDT", truth[500].sequence)
            assert [row["id"] for row in first] == [each.sequence for each in truth[500:1500]]
            for row, each in zip(first, truth[500:], strict=False):
                assert (Decimal(row["price"]), Decimal(row["qty"])) == (each.price, each.size)
                assert (row["time"] * 1000, row["isBuyerMaker"]) == (each.traded_at, each.side == "sell")
                assert Decimal(row["quoteQty"]) == each.price * each.size
            base = "/fapi/v1" if venue == "binance-usdm" else "/api/v3"
            recent = await get(sim, f"{base}/trades", symbol="BTCUSDT")
            assert [row["id"] for row in recent] == [each.sequence for each in truth[-500:]]

    run(test())


def test_old_trades_of_usdm_need_a_key_and_those_of_spot_do_not() -> None:
    async def test() -> None:
        async with simulator("binance-usdm") as usdm, simulator("binance") as spot:
            status, body, _ = await answer(usdm, "/fapi/v1/historicalTrades", symbol="BTCUSDT")
            assert (status, body["code"]) == (401, -2015)
            assert await get(usdm, "/fapi/v1/historicalTrades", {"X-MBX-APIKEY": "key"}, symbol="BTCUSDT") == []
            assert await get(usdm, "/fapi/v1/trades", symbol="BTCUSDT") == []
            assert await get(spot, "/api/v3/historicalTrades", symbol="BTCUSDT") == []
            status, body, _ = await answer(spot, "/api/v3/trades", symbol="NOSUCH")
            assert (status, body["code"]) == (400, -1121)

    run(test())


def test_binance_lists_a_symbol_that_does_not_trade() -> None:
    async def test() -> None:
        async with simulator("binance") as spot, simulator("binance-usdm") as usdm:
            for sim, path in ((spot, "/api/v3/exchangeInfo"), (usdm, "/fapi/v1/exchangeInfo")):
                listed = (await get(sim, path))["symbols"]
                assert [each["symbol"] for each in listed if each["status"] == "TRADING"] == list(sim.markets)
                assert len(listed) == len(sim.markets) + 1

    run(test())


# Faults


def test_every_fault_is_tested_here() -> None:
    text = Path(__file__).read_text()
    assert [name for name in FAULTS if f'.fault("{name}"' not in text] == []


@EVERY_VENUE
def test_drop_resets_all_connections_and_trades_go_on(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, sim.markets[0]) as one, client(sim) as other:
            sim.start_market()
            await until(lambda: len(one.frames) > 20)
            sim.fault("drop")
            assert (await one.ended()).rcvd is None
            assert (await other.ended()).rcvd is None
            count = sim.trades
            await until(lambda: sim.trades > count + 100)
            assert sim.subscribed == []

    run(test())


def test_drop_of_one_leaves_the_others() -> None:
    async def test() -> None:
        async with simulator("binance") as sim, client(sim) as one, client(sim) as other:
            sim.fault("drop", connections="one")
            await until(lambda: one.closed is not None or other.closed is not None)
            left = one if one.closed is None else other
            await left.settle()
            assert left.closed is None

    run(test())


@EVERY_VENUE
def test_close_closes_with_the_code(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, sim.markets[0]) as reader:
            sim.start_market()
            await until(lambda: len(reader.frames) > 20)
            sim.fault("close", code=1012, reason="restart")
            closed = await reader.ended()
            assert closed.rcvd is not None
            assert (closed.rcvd.code, closed.rcvd.reason) == (1012, "restart")

    run(test())


@EVERY_VENUE
def test_silence_keeps_the_connection_open_says_nothing_and_ends_in_a_reset(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, sim.markets[0]) as reader:
            sim.start_market()
            await until(lambda: len(reader.frames) > 20)
            sim.fault("silence", seconds=0.4)
            begun = time.monotonic()
            await trade(sim, 1)  # the market is stopped: what was on its way has been sent by now
            count = await came_to_rest(reader)
            sim.start_market()
            traded = sim.trades
            waiter = await reader.ws.ping()
            await until(lambda: sim.trades > traded + 100)
            assert not waiter.done()
            assert reader.closed is None
            assert (await reader.ended()).rcvd is None
            assert time.monotonic() - begun >= 0.4
            assert len(reader.frames) == count
            async with client(sim, sim.markets[0]) as next_one:
                await until(lambda: len(next_one.frames) > 20)

    run(test())


async def came_to_rest(reader: Client) -> int:
    """How many frames there are when no more come for a while."""
    count = -1
    while count != len(reader.frames):
        count = len(reader.frames)
        await asyncio.sleep(0.05)
    return count


async def by_bytes(sim: Simulator) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A websocket opened by hand, all of whose bytes are seen."""
    host, port = sim.rest_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**22)
    path = sim.websocket_url.partition(port)[2]
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


@EVERY_VENUE
@pytest.mark.parametrize("fragmented", [False, True])
def test_half_a_frame_is_never_a_message(venue: str, fragmented: bool) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, aiohttp.ClientSession() as session:
            ws = await session.ws_connect(sim.websocket_url)  # to hold the subscription's last message
            await ws.send_str(subscription(venue, sim.markets[0]))
            await sim.wait_subscribed([sim.markets[0]])
            await trade(sim, 50)
            reader, writer = await by_bytes(sim)
            sim.fault("half_frame", fragmented=fragmented)
            data = b""
            with contextlib.suppress(ConnectionResetError):
                while chunk := await reader.read(1000):
                    data += chunk
            writer.close()
            assert data[0] == (0x01 if fragmented else 0x81)
            complete = len(data) - 2 == data[1]
            assert complete == fragmented

    run(test())


@EVERY_VENUE
def test_a_client_in_the_middle_of_half_a_frame_sees_the_connection_break(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            await trade(sim, 100)
            await reader.settle()
            frames = len(reader.frames)
            sim.fault("half_frame")
            assert isinstance(await reader.ended(), ConnectionClosedError)
            assert len(reader.frames) == frames

    run(test())


@EVERY_VENUE
def test_garbage_affects_no_trade(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            await trade(sim, 100)
            await reader.settle()
            good = len(reader.frames)
            sim.fault("garbage")
            await reader.settle()
            garbage = reader.frames[good:]
            parser = VENUES[venue].parser()
            for frame in garbage:
                assert parser.parse(frame, time.time_ns() // 1000).trades == []
            unreadable = [frame for frame in garbage if not is_json(frame)]
            assert len(unreadable) >= 2
            assert len(garbage) > len(unreadable) + 2
            await trade(sim, 100)
            await reader.settle()
            kept = [frame for frame in reader.frames if frame not in garbage]
            assert by_ashi(venue, kept) == Counter(sim.truth())

    run(test())


def is_json(frame: bytes) -> bool:
    try:
        json.loads(frame)
    except ValueError:
        return False
    return True


@EVERY_VENUE
def test_an_error_frame_comes_unasked(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim) as reader:
            sim.fault("error_frame")
            sim.fault("error_frame", text='{"error":"ERR-5201 MAINTENANCE"}')
            await reader.settle()
            own, asked = reader.messages
            assert own["error"]
            assert asked == {"error": "ERR-5201 MAINTENANCE"}

    run(test())


@pytest.mark.parametrize("venue", ["bitflyer", "binance", "binance-usdm"])
def test_duplicate_sends_the_last_messages_again(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            await trade(sim, 200)
            await reader.settle()
            before = list(reader.frames)
            sim.fault("duplicate", frames=7)
            await reader.settle()
            assert reader.frames == before + before[-7:]

    run(test())


@pytest.mark.parametrize("venue", ["bitflyer", "binance", "binance-usdm"])
def test_reorder_reverses_the_next_messages_of_a_market_and_loses_none(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            sim.fault("reorder", market=sim.markets[1], frames=5)
            await trade(sim, 500)
            await reader.settle()
            assert by_ashi(venue, reader.frames) == Counter(sim.truth())
            symbol = f"{venue}:{sim.markets[1]}"
            parser = VENUES[venue].parser()
            firsts = [
                parsed.trades[0].sequence
                for frame in reader.frames
                if (parsed := parser.parse(frame, time.time_ns() // 1000)).trades and parsed.trades[0].symbol == symbol
            ]
            head = firsts[:4]  # one of five may be a trade outside the order book
            assert head == sorted(head, reverse=True)
            assert firsts[6:] == sorted(firsts[6:])

    run(test())


def test_what_is_held_to_be_reordered_comes_although_too_few_follow() -> None:
    async def test() -> None:
        async with simulator("binance", markets=["BTCUSDT"], rate=50) as sim, client(sim, "BTCUSDT") as reader:
            sim.fault("reorder", frames=100_000)
            sim.start_market()
            await until(lambda: len(reader.frames) > 5)

    run(test())


@pytest.mark.parametrize(
    ("venue", "market"), [("binance", "BTCUSDT"), ("binance-usdm", "BTCUSDT"), ("bitflyer", "FX_BTC_JPY")]
)
def test_skip_leaves_a_hole_over_the_websocket_that_rest_can_fill(venue: str, market: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            await trade(sim, 200)
            sim.fault("skip", market=market, frames=3)
            await trade(sim, 500)
            await reader.settle()
            missing = Counter(sim.truth()) - by_ashi(venue, reader.frames)
            assert 1 <= len(missing) <= 3 * 17
            assert {each.symbol for each in missing} == {f"{venue}:{market}"}
            lost = min(each.sequence for each in missing)
            if venue == "bitflyer":
                rows = await get(sim, "/v1/getexecutions", product_code=market, count=500, after=lost - 1)
            else:
                rows = await historical(sim, market, lost)
            assert {each.sequence for each in missing} <= {row["id"] for row in rows}

    run(test())


@pytest.mark.parametrize("venue", ["binance", "bitflyer"])
def test_lifetime_ends_connections_with_a_notice_where_the_venue_gives_one(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, sim.markets[0]) as reader:
            sim.fault("lifetime", notice_s=0.2)
            closed = await reader.ended()
            assert closed.rcvd is not None
            notices = [message for message in reader.messages if message.get("e") == "serverShutdown"]
            assert len(notices) == (venue == "binance")

    run(test())


REST_PATHS = {
    "bitflyer": "/v1/getmarkets",
    "gmo": "/public/v1/ticker",
    "binance": "/api/v3/exchangeInfo",
    "binance-usdm": "/fapi/v1/exchangeInfo",
}


@EVERY_VENUE
def test_rest_can_refuse_fail_and_hang_for_so_many_requests(venue: str) -> None:
    async def test() -> None:
        path = REST_PATHS[venue]
        async with simulator(venue) as sim:
            sim.fault("rest_429", requests=2, retry_after_s=3)
            for _ in range(2):
                status, _, headers = await answer(sim, path)
                assert (status, headers["Retry-After"]) == (429, "3")
            assert sim.limits()["rest_too_early"] == 1
            sim.fault("rest_500", requests=1, status=503)
            assert (await answer(sim, path))[0] == 503
            sim.fault("rest_timeout", requests=2, seconds=0.2)  # aiohttp tries again by itself
            begun = time.monotonic()
            with pytest.raises(aiohttp.ClientError):
                await answer(sim, path)
            assert time.monotonic() - begun >= 0.2
            await get(sim, path)

    run(test())


def test_rest_lag_hides_what_has_just_happened_for_a_while() -> None:
    async def test() -> None:
        async with simulator("binance", markets=["BTCUSDT"]) as sim:
            await trade(sim, 200)
            sim.fault("rest_lag", milliseconds=60_000, seconds=0.3)
            assert await historical(sim, "BTCUSDT", 0) == []
            sim.fault("rest_lag", milliseconds=0, seconds=0.3)
            assert len(await historical(sim, "BTCUSDT", 0)) == sim.trades
            sim.fault("rest_lag", milliseconds=60_000, seconds=0.1)
            await asyncio.sleep(0.12)  # the time is what is tested
            assert len(await historical(sim, "BTCUSDT", 0)) == sim.trades

    run(test())


def test_what_rest_knows_while_it_lags_is_a_beginning_that_only_grows() -> None:
    history = TradeHistory("bitflyer", "BTC_JPY")
    history.executions = [
        execution for _, batch in executions_of("bitflyer", ("BTC_JPY",), 2000) for execution in batch
    ]
    times = sorted(execution.at for execution in history.executions)
    known = [len(history.known(time)) for time in range(times[0] - 1, times[-1] + 1, 100_000)]
    assert known == sorted(known)
    assert known[0] == 0
    assert len(history.known(times[-1])) == len(history.executions)
    middle = times[1000]
    assert history.known(middle) == history.executions[: len(history.known(middle))]
    assert all(execution.at > middle for execution in history.executions[len(history.known(middle)) :])


def test_refuse_refuses_connections_for_a_while_and_breaks_those_there_are() -> None:
    async def test() -> None:
        async with simulator("gmo") as sim, client(sim) as reader:
            sim.fault("refuse", seconds=0.4)
            begun = time.monotonic()
            await reader.ended()
            with pytest.raises(ConnectionRefusedError):
                await connect(sim.websocket_url)
            with pytest.raises(aiohttp.ClientConnectorError):
                await answer(sim, "/public/v1/ticker")
            while True:
                try:
                    async with client(sim, "BTC"):
                        break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.02)
            assert time.monotonic() - begun >= 0.4

    run(test())


def test_refuse_can_leave_open_connections_alone() -> None:
    async def test() -> None:
        async with simulator("gmo") as sim, client(sim, "BTC") as reader:
            sim.fault("refuse", seconds=0.2, drop=False)
            await asyncio.sleep(0)
            await trade(sim, 100)
            await reader.settle()
            assert by_ashi("gmo", reader.frames) == Counter(sim.truth(markets=["BTC"]))

    run(test())


@EVERY_VENUE
def test_slow_delays_every_message_and_keeps_their_order(venue: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim, client(sim, *sim.markets) as reader:
            sim.fault("slow", seconds=0.3, delay_s=0.5)
            first = len(reader.frames)
            begun = time.monotonic()
            sim.start_market()
            await until(lambda: len(reader.frames) > first + 20)
            assert time.monotonic() - begun >= 0.5
            await trade(sim, 1)
            await reader.settle()
            assert by_ashi(venue, reader.frames) == Counter(sim.truth())
            assert venue == "gmo" or in_order(venue, reader.frames)

    run(test())


def in_order(venue: str, frames: list[bytes]) -> bool:
    last: dict[str, int] = {}
    parser = VENUES[venue].parser()
    for frame in frames:
        for each in parser.parse(frame, time.time_ns() // 1000).trades:
            if each.sequence <= last.get(each.symbol, -1):
                return False
            last[each.symbol] = each.sequence
    return True


@pytest.mark.parametrize(
    ("venue", "name", "arguments", "said"),
    [
        ("binance", "dorp", {}, "fault 'dorp' is unknown: choose one of drop"),
        ("binance", "drop", {"conections": "all"}, "has no argument 'conections'; it has connections"),
        ("binance", "drop", {"connections": "some"}, "connections must be 'all' or 'one'"),
        ("binance", "silence", {"seconds": "long"}, "seconds must be of type float"),
        ("binance", "silence", {"seconds": -1}, "must not be negative"),
        ("binance", "rest_429", {"requests": True}, "requests must be of type int"),
        ("binance", "skip", {"market": "NOSUCH"}, "market 'NOSUCH' is not simulated"),
        ("bitflyer", "skip", {"market": "BTC_JPY"}, "ids of BTC_JPY are not contiguous"),
        ("gmo", "duplicate", {}, "gmo has no trade ids"),
        ("gmo", "reorder", {}, "gmo has no trade ids"),
        ("gmo", "skip", {}, "gmo has no market here whose ids are contiguous"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(venue: str, name: str, arguments: dict[str, Any], said: str) -> None:
    async def test() -> None:
        async with simulator(venue) as sim:
            with pytest.raises(UsageError, match=re.escape(said)):
                sim.fault(name, **arguments)
            assert sim.faults_done == []

    run(test())


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
def test_under_fifty_random_faults_the_market_goes_on(venue: str) -> None:
    async def test() -> None:
        script = random_script(1, 50, venue, MARKETS[venue], every_s=0.04)
        async with simulator(venue, script=script) as sim:
            sim.start_market()
            while not sim.script_done:
                with contextlib.suppress(OSError, ConnectionClosed, InvalidStatus, TimeoutError):
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


def test_a_recording_of_another_venue_or_without_the_market_is_refused() -> None:
    with pytest.raises(UsageError, match="no trade of binance"):
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


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
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
        assert started.wait(timeout=10) == 0


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
        assert started.wait(timeout=10) == 0


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
    assert (status, error) == (
        2,
        f"ashi: {recording}: no trade of gmo is in there; is it a recording of another venue?\n",
    )
    status, error = refusal("gmo", "--recording", str(tmp_path / "none.gz"))
    assert status == 2
    assert "none.gz: there is no such file" in error
