"""A venue on this machine: websocket and REST of bitFlyer, GMO Coin, Binance spot or USD-M, as they document them.

https://bf-lightning-api.readme.io, https://api.coin.z.com/docs/en, https://developers.binance.com/docs
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

from aiohttp import WSMsgType, web

from .faults import Faults
from .rest import Rest, bitflyer_row, iso
from .truth import Trade, Truth

Json = Any


class Connection:
    """One websocket and what it has subscribed to; a market in `muted` was, and gets nothing."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.socket = socket
        self.request = request
        self.markets: set[str] = set()
        self.muted: set[str] = set()
        self.queue: asyncio.Queue[str] = asyncio.Queue()

    def abort(self) -> None:
        if self.request.transport is not None:
            self.request.transport.abort()


class Venue:
    """Serves until `close`. `subscriptions`: what was asked; `violations`: which limits were broken."""

    def __init__(self, venue: str, rates: dict[str, float], seed: int = 1) -> None:
        self.venue = venue
        self.truth = Truth(venue, rates, seed)
        self.faults = Faults()
        self.connections: set[Connection] = set()
        self.rest = Rest(self.truth, self.faults)
        self.subscriptions: list[tuple[float, str]] = []
        self.violations: list[str] = []
        self._last_subscribe = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None
        self.port = 0
        self.held: dict[str, list[tuple[Connection, str]]] = {}

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("GET", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        for name in self.truth.markets:
            self.trade(name)

    def trade(self, name: str) -> None:
        """Begin to trade a market by its rate."""
        self._tasks.append(asyncio.create_task(self._trade(name)))

    def pause(self) -> None:
        """No market trades any more."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        self.pause()
        for connection in list(self.connections):
            connection.abort()
        if self._runner:
            await self._runner.cleanup()

    # ---- trading

    async def _trade(self, name: str) -> None:
        chance = self.truth.random
        while True:
            market = self.truth.markets[name]
            await asyncio.sleep(chance.expovariate(market.rate) if market.rate else 1)
            if market.rate and not market.halted and market.listed:
                self.push(name, chance.choice((1, 1, 1, 2, 5)))

    def push(self, name: str, count: int = 1, lost: bool = False) -> list[Trade]:
        """Trade so many at once and tell those who have subscribed, unless `lost`."""
        trades = self.truth.make(name, count)
        if self.venue == "bitflyer":
            frames = [self.frame(trades[at : at + 16]) for at in range(0, len(trades), 16)]
        else:
            frames = [self.frame([trade]) for trade in trades]
        for frame in frames:
            if lost or self.faults.take(self.faults.lose_frames, name):
                continue
            for connection in self.connections:
                if name in connection.markets and name not in connection.muted:
                    if name in self.held:
                        self.held[name].append((connection, frame))
                        continue
                    connection.queue.put_nowait(frame)
                    if self.truth.random.random() < self.faults.duplicate:
                        connection.queue.put_nowait(frame)
        return trades

    async def hold(self, name: str, seconds: float) -> None:
        """What comes of this market waits so long, and is then delivered in order over the connections it was for."""
        if name in self.held:
            return
        self.held[name] = []
        await asyncio.sleep(seconds)
        for connection, frame in self.held.pop(name):
            connection.queue.put_nowait(frame)

    def mute(self, name: str) -> None:
        """Nothing of this market comes any more over the subscriptions that are; a new one is heard."""
        for connection in self.connections:
            if name in connection.markets:
                connection.muted.add(name)

    def cut(self) -> None:
        for connection in list(self.connections):
            connection.abort()

    def frame(self, trades: list[Trade]) -> str:
        first = trades[0]
        if self.venue == "bitflyer":
            rows = ",".join(bitflyer_row(trade, live=True) for trade in trades)
            channel = f"lightning_executions_{first.market}"
            head = '{"jsonrpc":"2.0","method":"channelMessage","params":{"channel":"'
            return f'{head}{channel}","message":[{rows}]}}}}'
        if self.venue == "gmo":
            return json.dumps(
                {
                    "channel": "trades",
                    "price": first.price,
                    "side": "BUY" if first.taker_buys else "SELL",
                    "size": first.size,
                    "symbol": first.market,
                    "timestamp": iso(first.at_us, 3, False) + "Z",
                }
            )
        data: dict[str, Json] = {"e": "trade", "E": int(self.truth.now() * 1000), "s": first.market, "t": first.id}
        data |= {"p": first.price, "q": first.size, "T": first.at_us // 1000, "m": not first.taker_buys}
        data |= {"X": first.kind} if self.venue == "binance-usdm" else {"M": True}
        return json.dumps({"stream": f"{first.market.lower()}@trade", "data": data}, ensure_ascii=False)

    # ---- websocket

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._socket(request)
        return await self.rest.answer(request)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        status = self.faults.handshake()
        if status:
            return web.Response(status=status, text="refused")
        socket = web.WebSocketResponse(autoping=True)
        await socket.prepare(request)
        connection = Connection(socket, request)
        self.connections.add(connection)
        streams = request.query.get("streams", "")
        for stream in filter(None, streams.split("/")):
            self._listen(connection, self._market_of_stream(stream))
        writer = asyncio.create_task(self._write(connection))
        pinger = asyncio.create_task(self._ping(connection))
        stamps: list[float] = []
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    continue
                stamps = [at for at in stamps if at > time.time() - 1] + [time.time()]
                if self.venue.startswith("binance") and len(stamps) > 5:
                    self.violations.append(f"{len(stamps)} messages in a second")
                    break
                await self._asked(connection, json.loads(message.data))
        finally:
            self.connections.discard(connection)
            writer.cancel()
            pinger.cancel()
        return socket

    async def _write(self, connection: Connection) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await connection.socket.send_str(await connection.queue.get())

    async def _ping(self, connection: Connection) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.sleep(20 if self.venue.startswith("binance") else 60)
                await connection.socket.ping()

    def _market_of_stream(self, stream: str) -> str:
        return stream.partition("@")[0].upper()

    def _listen(self, connection: Connection, name: str) -> None:
        connection.markets.add(name)
        connection.muted.discard(name)
        if self.faults.take(self.faults.mute_subscription, name):
            connection.muted.add(name)

    async def _asked(self, connection: Connection, asked: Json) -> None:
        if self.venue == "bitflyer":
            names = [asked["params"]["channel"].removeprefix("lightning_executions_")]
            subscribe = asked["method"] == "subscribe"
            answer: Json = {"jsonrpc": "2.0", "id": asked.get("id"), "result": True}
            refusal: Json = {
                "jsonrpc": "2.0",
                "id": asked.get("id"),
                "error": {"code": -32602, "message": "Invalid params"},
            }
        elif self.venue == "gmo":
            names = [asked["symbol"]]
            subscribe = asked["command"] == "subscribe"
            answer, refusal = None, {"error": "ERR-5106 Invalid request parameter. symbol"}
            if time.time() - self._last_subscribe < 1:
                self.violations.append(f"{asked['command']} {time.time() - self._last_subscribe:.3f} s after another")
                connection.queue.put_nowait('{"error":"ERR-5003 Request too many."}')
                return
            self._last_subscribe = time.time()
            if subscribe and asked.get("option") != "TAKER_ONLY":
                self.violations.append("not TAKER_ONLY")
        else:
            if asked["method"] not in ("SUBSCRIBE", "UNSUBSCRIBE"):
                connection.queue.put_nowait(json.dumps({"result": sorted(connection.markets), "id": asked["id"]}))
                return
            names = [self._market_of_stream(stream) for stream in asked["params"]]
            subscribe = asked["method"] == "SUBSCRIBE"
            answer = {"result": None, "id": asked["id"]}
            refusal = {"error": {"code": 2, "msg": "Invalid request: unknown stream"}, "id": asked["id"]}
        late = 0.0
        if subscribe:
            self.subscriptions += [(time.time(), name) for name in names]
            failing = [name for name in names if self.faults.take(self.faults.refuse_subscription, name)]
            if failing:
                connection.queue.put_nowait(json.dumps(refusal))
                return
            failing = [name for name in names if self.faults.take(self.faults.ignore_subscription, name)]
            if failing:
                return
            late = max(self.faults.late_subscription_s.get(name, 0.0) for name in names)
            unknown = [name for name in names if name not in self.truth.markets]
            if unknown and not self.venue.startswith("binance"):
                connection.queue.put_nowait(json.dumps(refusal))
                return
        if late:
            await asyncio.sleep(late)
        for name in names:
            if subscribe:
                self._listen(connection, name)
            else:
                connection.markets.discard(name)
        if answer is not None and ("id" in asked):
            connection.queue.put_nowait(json.dumps(answer))
