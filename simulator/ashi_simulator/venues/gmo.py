"""GMO Coin as a server. Source: https://api.coin.z.com/docs/en/#ws-trades and #trades.

No ids. Every execution has two rows, the taker's and its counterpart's; only over the websocket can one be asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ashi_simulator.notation import ms_date
from ashi_simulator.subscriptions import Welcome
from ashi_simulator.venue_server import BROKEN, RestAnswer, Route, dump, load, number_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from ashi_simulator.connection import Connection
    from ashi_simulator.executions import ExecutionBatch
    from ashi_simulator.markets.listings import Listing
    from ashi_simulator.subscriptions import Subscriptions
    from ashi_simulator.venue_server import RestRequest

MOST_ROWS: Final = 100
TOO_MANY: Final = '{"error":"ERR-5003 Request too many."}'
INVALID: Final = b'{"error":"ERR-5106 Invalid request parameter."}'
COUNTERPART: Final = {"BUY": "SELL", "SELL": "BUY", "": ""}


class GmoServer:
    """Says nothing to a subscription that it accepts."""

    websocket_path: Final = "/ws/public/v1"
    websocket_paths: Final = ("/ws/public/v1",)
    error_frame: Final = TOO_MANY

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions
        self._markets = subscriptions.listings
        self.routes: Final = (
            Route("/public/v1/trades", 1, self._trades),
            Route("/public/v1/ticker", 1, self._ticker),
            Route("/public/v1/symbols", 1, self._symbols),
            Route("/public/v1/status", 1, self._status),
        )

    def notice(self) -> bytes | None:
        """It announces nothing."""
        return None

    def frames(self, batch: ExecutionBatch) -> Sequence[bytes]:
        """A message for each, the taker's row."""
        return [
            f'{{"channel":"trades","price":"{execution.price}","side":"{execution.taker}","size":"{execution.size}",'
            f'"symbol":"{batch.market}","timestamp":"{ms_date(execution.at)}"}}'.encode()
            for execution in batch.executions
        ]

    def garbage(self, market: str) -> Sequence[bytes]:
        """Things that are no trades."""
        head = f'{{"channel":"trades","symbol":"{market}","side":"BUY"'
        return [
            *BROKEN,
            f"{head}}}".encode(),
            f'{head},"price":"NaN","size":"0.1","timestamp":"2025-04-30T13:09:43.601Z"}}'.encode(),
            f'{head},"price":"13492957","size":"0.1","timestamp":"yesterday"}}'.encode(),
            f'{head},"price":13492957,"size":0.1,"timestamp":"2025-04-30T13:09:43.601Z"}}'.encode(),
        ]

    def opened(self, connection: Connection, request: web.Request) -> None:
        """Nothing is sent until something is asked for."""

    def received(self, connection: Connection, text: str) -> None:
        """Subscribe or unsubscribe. What comes too soon or names no market is answered with an error."""
        if connection.too_soon:
            return connection.send(TOO_MANY.encode())
        message = load(text) or {}
        market = message.get("symbol")
        if message.get("channel") != "trades" or not isinstance(market, str) or market not in self._markets:
            return connection.send(INVALID)
        match message.get("command"):
            case "subscribe":
                match self._subscriptions.welcome([market]):
                    case Welcome.IGNORED:
                        return None
                    case Welcome.REFUSED:
                        return connection.send(INVALID)
                taker_only = message.get("option") == "TAKER_ONLY"
                self._subscriptions.subscribe(connection, market, None if taker_only else _both_rows)
            case "unsubscribe" if market in connection.subscriptions:
                self._subscriptions.unsubscribe(connection, market)
            case _:
                connection.send(INVALID)
        return None

    def too_many_requests(self, banned_until_ms: int | None) -> bytes:  # noqa: ARG002  (it does not say)
        """As for every error of its REST interface."""
        return dump({"status": 1, "messages": [{"message_code": "ERR-5003", "message_string": "Request too many."}]})

    def maintenance(self) -> RestAnswer:
        """While the whole exchange is being worked on."""
        message = {"message_code": "ERR-5201", "message_string": "MAINTENANCE. Please wait for a while"}
        return RestAnswer(dump({"status": 5, "messages": [message]}))

    def _trades(self, request: RestRequest) -> RestAnswer:
        market = request.parameters.get("symbol")
        try:
            page = number_of(request.parameters, "page", 1) or 1
            count = min(number_of(request.parameters, "count", MOST_ROWS) or MOST_ROWS, MOST_ROWS)
        except ValueError:
            return _refusal(request)
        if market is None or market not in self._markets:
            return _refusal(request)
        executions = request.executions(market)
        first = (page - 1) * count
        rows = []
        for place in range(first, min(first + count, 2 * len(executions))):
            execution = executions[len(executions) - 1 - place // 2]
            # Newest first, and read from the other end the taker's row is the first of the two.
            side = execution.taker if place % 2 else COUNTERPART[execution.taker]
            rows.append(
                {"price": execution.price, "side": side, "size": execution.size, "timestamp": ms_date(execution.at)}
            )
        return _answer(request, {"pagination": {"currentPage": page, "count": count}, "list": rows})

    def _ticker(self, request: RestRequest) -> RestAnswer:
        wanted = request.parameters.get("symbol")
        if wanted is not None and wanted not in self._markets:
            return _refusal(request)
        return _answer(
            request, [_tick(request, market) for market in self._markets if wanted is None or market == wanted]
        )

    def _symbols(self, request: RestRequest) -> RestAnswer:
        """The rules of every market. A halt is not among them."""
        return _answer(request, [_rules(self._markets[market]) for market in self._markets])

    def _status(self, request: RestRequest) -> RestAnswer:
        """Of the exchange as a whole."""
        return _answer(request, {"status": "OPEN"})


def _rules(listing: Listing) -> dict[str, str]:
    return {
        "symbol": listing.market,
        "minOrderSize": listing.lot,
        "maxOrderSize": "1000",
        "sizeStep": listing.lot,
        "tickSize": listing.tick,
        "takerFee": "0.0005",
        "makerFee": "-0.0001",
    }


_swaps: Final = ((b'"side":"BUY"', b'"side":"SELL"'), (b'"side":"SELL"', b'"side":"BUY"'))


def _both_rows(frame: bytes) -> Sequence[bytes]:
    for side, other in _swaps:
        if side in frame:
            return [frame, frame.replace(side, other)]
    return [frame, frame]


def _tick(request: RestRequest, market: str) -> dict[str, str]:
    executions = request.executions(market)
    last = executions[-1].price if executions else "1"
    prices = dict.fromkeys(("ask", "bid", "high", "last", "low"), last)
    return {**prices, "symbol": market, "timestamp": ms_date(request.now), "volume": "1"}


def _answer(request: RestRequest, data: Any) -> RestAnswer:
    return RestAnswer(dump({"status": 0, "data": data, "responsetime": ms_date(request.now)}))


_INVALID_REQUEST: Final = {"message_code": "ERR-5106", "message_string": "Invalid request parameter."}


def _refusal(request: RestRequest) -> RestAnswer:
    return RestAnswer(dump({"status": 1, "messages": [_INVALID_REQUEST], "responsetime": ms_date(request.now)}))
