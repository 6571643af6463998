"""bitFlyer as a server.

Sources: https://bf-lightning-api.readme.io/docs/realtime-api and /reference/getpublicexecutions.

Over the websocket one message carries what one order swept; over REST the same executions have other times.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from ashi_simulator.executions import PER_S, is_too_old, place_of
from ashi_simulator.notation import pushed_date, rest_date, scientific, second_text
from ashi_simulator.subscriptions import Welcome
from ashi_simulator.venue_server import BROKEN, RestAnswer, Route, dump, load, number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohttp import web

    from ashi_simulator.connection import Connection
    from ashi_simulator.executions import Execution, ExecutionBatch
    from ashi_simulator.rules import Rules
    from ashi_simulator.subscriptions import Subscriptions
    from ashi_simulator.venue_server import RestRequest

CHANNEL: Final = "lightning_executions_"
MOST_ROWS: Final = 500
ROWS: Final = 100


class BitFlyerServer:
    """Speaks JSON-RPC 2.0 over the websocket."""

    websocket_path: Final = "/json-rpc"
    websocket_paths: Final = ("/json-rpc",)
    error_frame: Final = '{"jsonrpc":"2.0","error":{"code":-32603,"message":"Internal error"},"id":null}'

    def __init__(self, subscriptions: Subscriptions, rules: Rules) -> None:
        self._subscriptions = subscriptions
        self._rules = rules
        self._markets = subscriptions.listings
        self.routes: Final = (
            Route("/v1/getexecutions", 1, self._executions),
            Route("/v1/getmarkets", 1, self._list),
            Route("/v1/getboardstate", 1, self._state),
        )

    def notice(self) -> bytes | None:
        """It announces nothing."""
        return None

    def frames(self, batch: ExecutionBatch) -> Sequence[bytes]:
        """One message with all of them."""
        rows = ",".join(_row(execution, scientific(execution.size), pushed_date) for execution in batch.executions)
        return [
            f'{{"jsonrpc":"2.0","method":"channelMessage","params":{{"channel":"{CHANNEL}{batch.market}",'
            f'"message":[{rows}]}}}}'.encode()
        ]

    def garbage(self, market: str) -> Sequence[bytes]:
        """Things that are no executions."""
        head = f'{{"jsonrpc":"2.0","method":"channelMessage","params":{{"channel":"{CHANNEL}{market}","message":'
        return [
            *BROKEN,
            f"{head}null}}}}".encode(),
            f'{head}[{{"id":1,"side":"BUY","price":"NaN","size":0.1,"exec_date":"2021-12-12T23:05:29.9Z"}}]}}}}'.encode(),
            f'{head}[{{"id":2,"side":"BUY","price":5860832.0,"size":0.1,"exec_date":""}}]}}}}'.encode(),
            f'{head}[{{"id":3,"side":"LEFT","price":5860832.0,"size":0.1}}]}}}}'.encode(),
        ]

    def opened(self, connection: Connection, request: web.Request) -> None:
        """Nothing is sent until something is asked for."""

    def received(self, connection: Connection, text: str) -> None:
        """Subscribe or unsubscribe; answered only where the message has an id."""
        message = load(text)
        if message is None:
            return connection.send(_error(None, -32700, "Parse error"))
        parameters = message.get("params")
        channel = parameters.get("channel") if isinstance(parameters, dict) else None
        market = channel.removeprefix(CHANNEL) if isinstance(channel, str) else ""
        number = message.get("id")
        match message.get("method"):
            case "subscribe" if channel == CHANNEL + market and market in self._markets:
                match self._subscriptions.welcome([market]):
                    case Welcome.IGNORED:
                        return None
                    case Welcome.REFUSED:
                        return connection.send(_error(number, -32602, "Invalid params"))
                self._subscriptions.subscribe(connection, market, None)
            case "unsubscribe" if market in connection.subscriptions:
                self._subscriptions.unsubscribe(connection, market)
            case "subscribe" | "unsubscribe":
                return connection.send(_error(number, -32602, "Invalid params"))
            case _:
                return connection.send(_error(number, -32601, "Method not found"))
        if number is not None:
            connection.send(dump({"jsonrpc": "2.0", "id": number, "result": True}))
        return None

    def too_many_requests(self, banned_until_ms: int | None) -> bytes:  # noqa: ARG002  (it does not say)
        """As for every error of its REST interface."""
        return dump({"status": -1, "error_message": "Over API limit per period, per IP address", "data": None})

    def maintenance(self) -> RestAnswer:
        """As for every error of its REST interface."""
        return RestAnswer(dump({"status": -1, "error_message": "Service is temporarily unavailable", "data": None}))

    def _executions(self, request: RestRequest) -> RestAnswer:
        product = request.parameters.get("product_code", "BTC_JPY")
        try:
            count = number_of(request.parameters, "count", ROWS) or ROWS
            before = number_of(request.parameters, "before", None)
            after = number_of(request.parameters, "after", None)
        except ValueError as error:
            return _refusal(f"Invalid {error}")
        if product not in self._markets:
            return _refusal("Invalid product")
        executions = request.executions(product)
        end = len(executions) if not before else place_of(executions, before)
        begin = 0 if not after else place_of(executions, after + 1)
        begin = max(begin, end - min(count, MOST_ROWS))
        if before and is_too_old(executions, max(end - 1, 0), request.now, self._rules.history_s):
            return _refusal("Execution history is limited to the most recent 31 days.", status=-156)
        rows = ",".join(_row(execution, execution.size, rest_date) for execution in reversed(executions[begin:end]))
        return RestAnswer(f"[{rows}]".encode())

    def _list(self, request: RestRequest) -> RestAnswer:  # noqa: ARG002
        return RestAnswer(
            dump(
                [
                    {"product_code": market, "market_type": "FX" if market.startswith("FX_") else "Spot"}
                    for market in self._markets
                ]
            )
        )

    def _state(self, request: RestRequest) -> RestAnswer:
        """A halt stands here and nowhere else: the list of markets has no word for it."""
        product = request.parameters.get("product_code", "BTC_JPY")
        if product not in self._markets:
            return _refusal("Invalid product")
        state = "RUNNING" if self._markets[product].trading else "CLOSED"
        return RestAnswer(dump({"health": "NORMAL", "state": state}))


@lru_cache(maxsize=4096)
def _row(execution: Execution, size: str, date: Callable[[int], str]) -> str:
    at = second_text(execution.at // PER_S)
    order = f"JRF{at[:4]}{at[5:7]}{at[8:10]}-{at[11:13]}{at[14:16]}{at[17:]}-{execution.number % 1_000_000:06}"
    return (
        f'{{"id":{execution.number},"side":"{execution.taker}","price":{execution.price},"size":{size},'
        f'"exec_date":"{date(execution.at)}","buy_child_order_acceptance_id":"{order}",'
        f'"sell_child_order_acceptance_id":"{order}"}}'
    )


def _error(number: Any, code: int, message: str) -> bytes:
    return dump({"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}})


def _refusal(message: str, status: int = -100) -> RestAnswer:
    return RestAnswer(dump({"status": status, "error_message": message, "data": None}), 400)
