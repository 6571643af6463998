"""What the tests of the simulator share: clients that know nothing of Ashi but its parsers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from ashi_ingest.venues.registry import VENUES
from ashi_simulator import (
    RULES,
    Simulator,
    TrueTrade,
)
from ashi_simulator.executions import Execution
from ashi_simulator.markets.synthetic import SyntheticMarket

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


def executions_of(venue: str, markets: tuple[str, ...], amount: int) -> Iterator[tuple[str, list[Execution]]]:
    market = SyntheticMarket(venue, markets, seed=5, rate=10_000, bursts=False)
    market.start(16_000_000_000_000_000)
    for step in range(1, amount // 100 + 1):
        for batch in market.due(16_000_000_000_000_000 + step * 100_000):
            yield batch.market, batch.executions


async def historical(sim: Simulator, market: str, first: int) -> list[Any]:
    base = "/fapi/v1" if sim.venue == "binance-usdm" else "/api/v3"
    parameters = {"symbol": market, "fromId": first, "limit": 1000}
    return await get(sim, f"{base}/historicalTrades", {"X-MBX-APIKEY": "any"}, **parameters)


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
