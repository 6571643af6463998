"""Binance as a server, spot and USD-M.

Sources: https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams, …/rest-api/market-data-endpoints
and the like under derivatives/usds-margined-futures.
"""

from __future__ import annotations

import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from ashi_simulator.executions import MARKET, PER_MS, Execution, is_too_old, place_of
from ashi_simulator.markets.listings import Listing
from ashi_simulator.subscriptions import Welcome
from ashi_simulator.venue_server import BROKEN, RestAnswer, Route, dump, load, number_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiohttp import web

    from ashi_simulator.connection import Connection
    from ashi_simulator.executions import ExecutionBatch
    from ashi_simulator.rules import Rules
    from ashi_simulator.subscriptions import Subscriptions
    from ashi_simulator.venue_server import RestRequest

TRADE: Final = "@trade"
MOST_ROWS: Final = 1000
ROWS: Final = 500
HALTED: Final = "HALTEDUSDT"
"""Listed, but not trading: whoever subscribes to all markets must leave it out."""


class BinanceServer:
    """Accepts the name of any stream in silence, also of one that does not exist."""

    websocket_path: Final = "/stream"
    websocket_paths: Final = ("/stream", "/public/stream", "/ws", "/ws/{streams:.+}")
    error_frame: Final = '{"error":{"code":1,"msg":"Internal error"}}'

    def __init__(self, subscriptions: Subscriptions, rules: Rules, *, usdm: bool) -> None:
        self._subscriptions = subscriptions
        self._markets = subscriptions.listings
        self._rules = rules
        self._usdm = usdm
        base = "/fapi/v1" if usdm else "/api/v3"
        self.routes: Final = (
            Route(f"{base}/historicalTrades", 20 if usdm else 25, self._historical),
            Route(f"{base}/trades", 5 if usdm else 25, self._recent),
            Route(f"{base}/exchangeInfo", 1 if usdm else 20, self._info),
            Route(f"{base}/ticker/24hr", self._ticker_weight, self._ticker),
        )

    def notice(self) -> bytes | None:
        """Ten minutes before it closes a connection."""
        return dump({"e": "serverShutdown", "E": time.time_ns() // 10**6})

    def frames(self, batch: ExecutionBatch) -> Sequence[bytes]:
        """A message for each, as on a stream with a connection of its own."""
        return [self._frame(batch.market, execution) for execution in batch.executions]

    def _frame(self, market: str, execution: Execution) -> bytes:
        at = execution.at // PER_MS
        maker = "false" if execution.taker == "BUY" else "true"
        more = f'"X":"{execution.kind}"' if self._usdm else '"M":true'
        return (
            f'{{"e":"trade","E":{at + 1},"s":"{market}","t":{execution.number},"p":"{execution.price}",'
            f'"q":"{execution.size}","T":{at},"m":{maker},{more}}}'
        ).encode()

    def garbage(self, market: str) -> Sequence[bytes]:
        """Things that are no trades."""
        head = f'{{"e":"trade","E":1723161255343,"s":"{market}"'
        return [
            *BROKEN,
            f"{head}}}".encode(),
            f'{{"stream":"{market.lower()}@trade","data":null}}'.encode(),
            f'{head},"t":1,"p":"NaN","q":"0.1","T":1723161255342,"m":true}}'.encode(),
            f'{head},"t":-2,"p":"1.0","q":"0.1","T":1723161255342,"m":true}}'.encode(),
            f'{head},"t":3,"p":"1.0","q":"0.1","T":1723161255,"m":true}}'.encode(),
        ]

    def opened(self, connection: Connection, request: web.Request) -> None:
        """Streams may be named in the address: `/stream?streams=a/b` or `/ws/a/b`."""
        connection.combined = request.path.endswith("/stream")
        named = request.query.get("streams", "") if connection.combined else request.match_info.get("streams", "")
        self._subscribe(connection, [stream for stream in named.split("/") if stream])

    def received(self, connection: Connection, text: str) -> None:
        """SUBSCRIBE, UNSUBSCRIBE and LIST_SUBSCRIPTIONS."""
        message = load(text)
        if message is None:
            return connection.send(_error(None, 3, "Invalid JSON"))
        number = message.get("id")
        streams = message.get("params", [])
        if not isinstance(streams, list) or not all(isinstance(stream, str) for stream in streams):
            return connection.send(_error(number, 2, "Invalid request: params must be a list of strings"))
        result: Any = None
        match message.get("method"):
            case "SUBSCRIBE":
                return self._answer_subscribe(connection, number, streams)
            case "UNSUBSCRIBE":
                for stream in streams:
                    connection.unknown_streams.discard(stream)
                    if (market := self._market_of(stream)) in connection.subscriptions:
                        self._subscriptions.unsubscribe(connection, market)
            case "LIST_SUBSCRIPTIONS":
                result = [market.lower() + TRADE for market in connection.subscriptions]
            case _:
                return connection.send(_error(number, 2, "Invalid request: unknown method"))
        return connection.send(dump({"result": result, "id": number}))

    def _answer_subscribe(self, connection: Connection, number: Any, streams: Sequence[str]) -> None:
        welcome = self._subscriptions.welcome(filter(None, map(self._market_of, streams)))
        if welcome is Welcome.REFUSED:
            connection.send(_error(number, 2, "Invalid request: request params are invalid"))
        elif welcome is Welcome.ACCEPTED:
            accepted = self._subscribe(connection, streams)
            answer = {"result": None, "id": number}
            connection.send(dump(answer) if accepted else _error(number, 4, "Too many subscriptions"))

    def _subscribe(self, connection: Connection, streams: Sequence[str]) -> bool:
        """False: they would be more than a connection may have; then none of them is added."""
        wanted = {stream for stream in streams if self._market_of(stream) not in connection.subscriptions}
        streams_then = len(connection.subscriptions) + len(connection.unknown_streams | wanted)
        if self._rules.streams is not None and streams_then > self._rules.streams:
            return False
        for stream in streams:
            if (market := self._market_of(stream)) is None:
                connection.unknown_streams.add(stream)
            else:
                self._subscriptions.subscribe(connection, market, _Combined(market) if connection.combined else None)
        return True

    def _market_of(self, stream: str) -> str | None:
        return self._markets.spelled_like(stream.removesuffix(TRADE)) if stream.endswith(TRADE) else None

    def too_many_requests(self, banned_until_ms: int | None) -> bytes:
        """As for every error of its REST interface."""
        if banned_until_ms is not None:
            return _code(
                -1003,
                f"Way too much request weight used; IP banned until {banned_until_ms}. Please use WebSocket Streams "
                "for live updates to avoid bans.",
            )
        return _code(-1003, "Too many requests; please use the websocket for live updates.")

    def maintenance(self) -> RestAnswer:
        """As for every error of its REST interface."""
        return RestAnswer(_code(-1016, "This service is no longer available."))

    def _historical(self, request: RestRequest) -> RestAnswer:
        if self._rules.needs_key and not request.headers.get("X-MBX-APIKEY"):
            return RestAnswer(_code(-2015, "Invalid API-key, IP, or permissions for action."), 401)
        return self._rows(request, "fromId")

    def _recent(self, request: RestRequest) -> RestAnswer:
        return self._rows(request, None)

    def _rows(self, request: RestRequest, begins: str | None) -> RestAnswer:
        market = request.parameters.get("symbol", "")
        try:
            limit = min(number_of(request.parameters, "limit", ROWS) or ROWS, MOST_ROWS)
            number = number_of(request.parameters, begins, None) if begins else None
        except ValueError as error:
            return RestAnswer(_code(-1100, f"Illegal characters found in parameter '{error}'."), 400)
        if market not in self._markets:
            return RestAnswer(_code(-1121, "Invalid symbol."), 400)
        executions = request.executions(market)
        if number is not None:
            first = place_of(executions, number)
            if is_too_old(executions, first, request.now, self._rules.history_s):
                return RestAnswer(_code(-1130, "Data sent for parameter 'fromId' is not valid."), 400)
        chosen = _last(executions, limit) if number is None else _from(executions, number, limit)
        return RestAnswer(dump([self._row(execution) for execution in chosen]))

    def _row(self, execution: Execution) -> dict[str, Any]:
        row = {
            "id": execution.number,
            "price": execution.price,
            "qty": execution.size,
            "quoteQty": format(Decimal(execution.price) * Decimal(execution.size), "f"),
            "time": execution.at // PER_MS,
            "isBuyerMaker": execution.taker != "BUY",
        }
        return row if self._usdm else row | {"isBestMatch": True}

    def _info(self, request: RestRequest) -> RestAnswer:
        halted = "SETTLING" if self._usdm else "BREAK"
        listings = [self._markets[market] for market in self._markets]
        symbols = [_symbol(listing, "TRADING" if listing.trading else halted, usdm=self._usdm) for listing in listings]
        symbols.append(_symbol(Listing(HALTED, HALTED.removesuffix("USDT"), "USDT", "0.01"), halted, usdm=self._usdm))
        return RestAnswer(
            dump({"timezone": "UTC", "serverTime": request.now // PER_MS, "rateLimits": [], "symbols": symbols})
        )

    def _ticker_weight(self, parameters: Mapping[str, str]) -> int:
        if "symbol" in parameters:
            return 1 if self._usdm else 2
        return 40 if self._usdm else 80

    def _ticker(self, request: RestRequest) -> RestAnswer:
        """Of one market, or of all of them."""
        market = request.parameters.get("symbol")
        if market is None:
            return RestAnswer(dump([self._tick(request, market) for market in self._markets]))
        if market not in self._markets:
            return RestAnswer(_code(-1121, "Invalid symbol."), 400)
        return RestAnswer(dump(self._tick(request, market)))

    def _tick(self, request: RestRequest, market: str) -> dict[str, Any]:
        """Of its numbers the ids are true; -1 where nothing was traded."""
        executions = request.executions(market)
        last = executions[-1] if executions else None
        prices = ("openPrice", "highPrice", "lowPrice", "lastPrice", "weightedAvgPrice")
        return {
            "symbol": market,
            **dict.fromkeys(prices, last.price if last else "0"),
            "lastQty": last.size if last else "0",
            "openTime": request.now // PER_MS - 86_400_000,
            "closeTime": request.now // PER_MS,
            "firstId": executions[0].number if executions else -1,
            "lastId": last.number if last else -1,
            "count": len(executions),
        }


class _Combined:
    """A frame as one of several streams of a connection."""

    def __init__(self, market: str) -> None:
        self._head = f'{{"stream":"{market.lower()}{TRADE}","data":'.encode()

    def __call__(self, frame: bytes) -> Sequence[bytes]:
        return (self._head + frame + b"}",)


def _from(executions: Sequence[Execution], number: int, limit: int) -> list[Execution]:
    """The trades of the market whose id is `number` or greater, oldest first."""
    found: list[Execution] = []
    place = place_of(executions, number)
    while place < len(executions) and len(found) < limit:
        if executions[place].kind == MARKET:
            found.append(executions[place])
        place += 1
    return found


def _last(executions: Sequence[Execution], limit: int) -> list[Execution]:
    """The newest trades of the market, oldest first."""
    found: list[Execution] = []
    place = len(executions)
    while place and len(found) < limit:
        place -= 1
        if executions[place].kind == MARKET:
            found.append(executions[place])
    return found[::-1]


def _symbol(listing: Listing, status: str, *, usdm: bool) -> dict[str, Any]:
    symbol = {
        "symbol": listing.market,
        "status": status,
        "baseAsset": listing.base,
        "quoteAsset": listing.quote,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": listing.tick, "tickSize": listing.tick},
            {"filterType": "LOT_SIZE", "minQty": listing.lot, "stepSize": listing.lot},
        ],
    }
    more = {"pair": listing.market, "contractType": "PERPETUAL"} if usdm else {"isSpotTradingAllowed": True}
    return symbol | more


def _code(code: int, message: str) -> bytes:
    return dump({"code": code, "msg": message})


def _error(number: Any, code: int, message: str) -> bytes:
    return dump({"error": {"code": code, "msg": message}, "id": number})
