"""A server that speaks the chart's protocol from data it makes up: both pages without Kafka, store or workers.

For tests of what the pages do with thousands of markets, with text of any kind and with a server that goes away; and
for whoever works on the pages: `PYTHONPATH=tests/chart/browser .venv/bin/python -m fake_chart --port 8090`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from aiohttp import WSMsgType, web

from ashi_chart.pages.security import set_headers
from ashi_chart.pages.static_files import FOLDER, read_static_files, respond_with
from ashi_chart.pages.web import PAGES

TIMEFRAMES: Final = {"1m": 60, "5m": 300, "1h": 3600, "4h": 14400, "1d": 86400, "1w": 604800}
SECOND_US: Final = 1_000_000
FEEDS: Final = ("connected",) * 12 + ("silent", "repairing", "down", "stale", "unknown")


def now_us() -> int:
    return time.time_ns() // 1000


def feed(state: str = "connected") -> dict[str, Any]:
    now = now_us()
    return {
        "state": state,
        "since": now - 60 * SECOND_US,
        "reason": None if state == "connected" else f"{state}: as a venue would say it",
        "complete_until": now - 5 * SECOND_US,
        "updated_at": now,
        "last_traded_at": now - SECOND_US,
    }


class FakeMarket:
    """A market whose price wanders, by a chance of its own."""

    def __init__(self, symbol: str, seed: int) -> None:
        self.symbol = symbol
        self.chance = random.Random(seed)
        self.decimals = self.chance.choice((0, 1, 2, 4, 8))
        self.price = 10 ** self.chance.uniform(0, 6)
        self.opened = self.price
        self.spark = self._walk(24)
        self.volume = 10 ** self.chance.uniform(1, 6)
        self.feed = feed(self.chance.choice(FEEDS))
        self.version = 10**6

    def _walk(self, count: int) -> list[float]:
        walk = []
        for _ in range(count):
            walk.append(self.price)
            self.step()
        return walk

    def step(self) -> None:
        self.price *= math.exp(self.chance.gauss(0, 0.002))

    def text(self, price: float) -> str:
        return f"{price:.{self.decimals}f}"

    def row(self) -> dict[str, Any]:
        return {
            "symbol": self.symbol,
            "last": self.text(self.price),
            "change": self.price / self.opened - 1,
            "volume": f"{self.volume:.4f}",
            "quote_volume": f"{self.volume * self.price:.2f}",
            "state": "trading",
            "feed": self.feed,
            "updated": now_us(),
            "spark": [self.text(close) for close in self.spark],
        }

    def bars(self, timeframe: str, end: int, count: int) -> list[list[Any]]:
        """Closed bars that end at `end`, µs: the same for the same window, whenever they are asked for."""
        length = TIMEFRAMES[timeframe] * SECOND_US
        return [self.bar(timeframe, end - (count - index) * length) for index in range(count)]

    def bar(self, timeframe: str, open_time: int) -> list[Any]:
        length = TIMEFRAMES[timeframe] * SECOND_US
        number = open_time // length
        chance = random.Random(f"{self.symbol}/{timeframe}/{number}")
        opened, closed = self._level(number), self._level(number + 1)
        wick = abs(chance.gauss(0, 0.002)) * opened
        high, low = max(opened, closed) + wick, max(min(opened, closed) - wick, opened / 2)
        volume = 10 ** chance.uniform(0, 2)
        flags = 1 | 4
        prices = [self.text(price) for price in (opened, high, low, closed)]
        return [
            open_time,
            *prices,
            f"{volume:.4f}",
            chance.randrange(1, 500),
            number,
            flags,
            f"{volume * closed:.2f}",
            f"{volume / 2:.4f}",
        ]

    def _level(self, number: int) -> float:
        return self.opened * (
            1 + 0.05 * math.sin(number / 37) + 0.02 * math.sin(number / 5) + 0.01 * math.sin(number * 1.7)
        )


class FakeChart:
    """The server, in a thread of its own; `send` says something to every page that is connected."""

    def __init__(self, markets: int = 200, port: int = 0, moves: bool = True, static: Path = FOLDER) -> None:
        venues = ("binance", "bitflyer", "gmo", "binance-usdm")
        self.markets = {
            symbol: FakeMarket(symbol, number)
            for number in range(markets)
            for symbol in [f"{venues[number % len(venues)]}:{_name(number)}"]
        }
        self.port = port
        self.moves = moves
        self.static = static
        self.sockets: dict[web.WebSocketResponse, dict[str, Any]] = {}
        self.asked: list[dict[str, Any]] = []
        self.most_bars = 20_000
        """Who asks for more is cut off, as on a line that does not get them through."""
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self._thread: threading.Thread | None = None
        self._moving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        started = threading.Event()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(self._serve())
            started.set()
            self._loop.run_forever()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert started.wait(10), "the fake server has not begun within 10 s"

    def stop(self) -> None:
        """Be gone, as a server that was killed: connections end, and the port is free."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        assert self._thread is not None
        self._thread.join(10)

    def send(self, frame: dict[str, Any]) -> None:
        asyncio.run_coroutine_threadsafe(self._send_all(frame), self._loop).result(10)

    def cut_off(self) -> None:
        """End all connections, without a farewell."""

        async def end() -> None:
            for socket in list(self.sockets):
                self._abort(socket)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)

    async def _serve(self) -> None:
        app = web.Application()
        app.on_response_prepare.append(set_headers)
        for path in PAGES:
            app.router.add_get(f"/{path}", self._page)
        app.router.add_get("/api/bars", self._older)
        app.router.add_get("/ws", self._speak)
        app.router.add_get("/static/{name:.+}", self._file)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self._moving = asyncio.create_task(self._move())

    async def _end(self) -> None:
        assert self._runner is not None
        assert self._moving is not None
        self._moving.cancel()
        for socket in list(self.sockets):
            self._abort(socket)
        await self._runner.cleanup()

    @staticmethod
    def _abort(socket: web.WebSocketResponse) -> None:
        """No farewell, as when the server is killed."""
        transport = socket._req.transport if socket._req is not None else None
        if transport is not None:
            transport.abort()

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return self._give(PAGES[request.path[1:]], request)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        return self._give(request.match_info["name"], request)

    def _give(self, name: str, request: web.Request) -> web.StreamResponse:
        """Read anew each time, for who works on the pages."""
        return respond_with(read_static_files(self.static)[name], request)

    async def _older(self, request: web.Request) -> web.Response:
        symbol, timeframe = request.query["symbol"], request.query["timeframe"]
        limit, before = int(request.query["limit"]), int(request.query["before"])
        bars = self.markets[symbol].bars(timeframe, before, limit)
        return web.json_response({"symbol": symbol, "timeframe": timeframe, "bars": bars, "more": True, "gaps": []})

    async def _speak(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        wishes: dict[str, Any] = {}
        self.sockets[socket] = wishes
        try:
            await socket.send_json(
                {"t": "hello", "protocol": 1, "timeframes": list(TIMEFRAMES), "now": now_us(), "server": "fake"}
            )
            await socket.send_json({"t": "state", "kafka": "ok", "lag_s": 0.1, "now": now_us()})
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._answer(socket, wishes, json.loads(message.data))
        finally:
            self.sockets.pop(socket, None)
        return socket

    async def _answer(self, socket: web.WebSocketResponse, wishes: dict[str, Any], wish: dict[str, Any]) -> None:
        self.asked.append(wish)
        match wish["op"]:
            case "markets":
                wishes["markets"] = True
                rows = [market.row() for market in self.markets.values()]
                await socket.send_json({"t": "markets", "rows": rows, "all": True})
            case "markets-off":
                wishes.pop("markets", None)
            case "series":
                if wish["bars"] > self.most_bars:
                    self._abort(socket)
                    return
                wishes["series"] = (wish["symbol"], wish["timeframe"])
                await socket.send_json(self._snapshot(wish))

    def _snapshot(self, wish: dict[str, Any]) -> dict[str, Any]:
        symbol, timeframe = wish["symbol"], wish["timeframe"]
        market = self.markets.get(symbol)
        if market is None:
            return {"t": "error", "about": "series", "message": f"there is no market {symbol}"}
        length = TIMEFRAMES[timeframe] * SECOND_US
        end = now_us() // length * length
        hour = 3600 * SECOND_US
        gap = {
            "from": end - 2 * hour,
            "to": end - hour,
            "state": "lost",
            "final": True,
            "trades_recovered": 0,
            "reason": "x",
        }
        return {
            "t": "snapshot",
            "symbol": symbol,
            "timeframe": timeframe,
            "bars": market.bars(timeframe, end, min(wish["bars"], 20_000)),
            "more": True,
            "gaps": [gap],
            "signals": [],
            "instrument": None,
            "feed": market.feed,
        }

    async def _move(self) -> None:
        beat = 0
        while True:
            await asyncio.sleep(0.5)
            beat += 1
            if beat % 10 == 0:
                await self._send_all({"t": "state", "kafka": "ok", "lag_s": 0.1, "now": now_us()})
            if not self.moves:
                continue
            moved = random.sample(list(self.markets.values()), max(1, len(self.markets) // 20))
            for market in moved:
                market.step()
            rows = [market.row() for market in moved]
            await self._send_all({"t": "markets", "rows": rows, "all": False}, wanted="markets")
            for socket, wishes in list(self.sockets.items()):
                await self._move_series(socket, wishes)

    async def _move_series(self, socket: web.WebSocketResponse, wishes: dict[str, Any]) -> None:
        if "series" not in wishes or wishes["series"][0] not in self.markets:
            return
        symbol, timeframe = wishes["series"]
        market = self.markets[symbol]
        market.step()
        length = TIMEFRAMES[timeframe] * SECOND_US
        bar = market.bar(timeframe, now_us() // length * length)
        market.version += 1
        bar[4], bar[7], bar[8] = market.text((float(bar[2]) + float(bar[3])) / 2), market.version, 0
        with contextlib.suppress(ConnectionError):
            await socket.send_json({"t": "bars", "symbol": symbol, "timeframe": timeframe, "bars": [bar]})

    async def _send_all(self, frame: dict[str, Any], wanted: str | None = None) -> None:
        for socket, wishes in list(self.sockets.items()):
            if wanted is None or wanted in wishes:
                with contextlib.suppress(ConnectionError):
                    await socket.send_json(frame)


def _name(number: int) -> str:
    """A market's name: BTCUSDT, ETHUSDT, … and then made up ones."""
    known = ("BTC", "ETH", "XRP", "SOL", "BNB", "DOGE", "ADA", "TRX")
    base = known[number // 4] if number // 4 < len(known) else f"C{number // 4:04d}"
    return f"{base}_JPY" if number % 4 in {1, 2} else f"{base}USDT"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--markets", type=int, default=200)
    parser.add_argument("--static", type=Path, default=FOLDER)
    chosen = parser.parse_args()
    server = FakeChart(chosen.markets, chosen.port, static=chosen.static)
    server.start()
    sys.stdout.write(f"{server.url}\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


if __name__ == "__main__":
    main()
