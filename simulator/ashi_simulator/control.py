"""Control of a running simulator by a person or another process, over HTTP.

POST /sim/fault   {"fault": "drop", "args": {"connections": "one"}}
POST /sim/market  {"trading": true}
GET  /sim/truth   a line of JSON for each trade that must have been published; ?since_us=…
GET  /sim/limits  what clients took of the limits
GET  /sim/state   whether it trades, how many trades there were, what is subscribed to
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from ashi.contracts.decimals import format_decimal
from ashi.contracts.errors import UsageError
from ashi_simulator.faults import FAULTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi_simulator.executions import TrueTrade


class ControlledVenue(Protocol):
    """What is controlled: a `Simulator`, as far as it is needed here."""

    @property
    def trading(self) -> bool:
        """Whether executions happen."""

    @property
    def trades(self) -> int:
        """How many executions have happened."""

    @property
    def subscribed(self) -> Sequence[str]:
        """The markets somebody is subscribed to."""

    @property
    def script_done(self) -> bool:
        """Whether every fault of the script has been performed."""

    @property
    def faults_done(self) -> Sequence[tuple[str, dict[str, Any]]]:
        """The faults so far, with all arguments."""

    def fault(self, name: str, **arguments: Any) -> None:
        """Perform a fault. Raises UsageError for one that is unknown or makes no sense at this venue."""

    def start_market(self) -> None:
        """Let the market trade."""

    async def stop_market(self) -> None:
        """Let nothing happen any more."""

    def truth(self, since_us: int = 0) -> Sequence[TrueTrade]:
        """What must have been published of the executions since a time (µs)."""

    def limits(self) -> dict[str, Any]:
        """What clients took of the limits."""


def control_routes(simulator: ControlledVenue) -> list[web.RouteDef]:
    """The routes under /sim/."""

    async def fault(request: web.Request) -> web.Response:
        body = await _object(request)
        name, arguments = body.get("fault"), body.get("args", {})
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise _refusal(f'send {{"fault": "drop", "args": {{}}}}; faults are {", ".join(FAULTS)}')
        try:
            simulator.fault(name, **arguments)
        except UsageError as error:
            raise _refusal(str(error)) from None
        return web.json_response({"fault": name, "args": arguments})

    async def market(request: web.Request) -> web.Response:
        trading = (await _object(request)).get("trading")
        if not isinstance(trading, bool):
            raise _refusal('send {"trading": true} or {"trading": false}')
        if trading:
            simulator.start_market()
        else:
            await simulator.stop_market()
        return web.json_response({"trading": trading})

    async def truth(request: web.Request) -> web.Response:
        since = request.query.get("since_us", "0")
        if not since.isdigit():
            raise _refusal("since_us is a number of microseconds since the epoch")
        lines = "".join(json.dumps(_written(trade)) + "\n" for trade in simulator.truth(int(since)))
        return web.Response(text=lines, content_type="application/x-ndjson")

    async def limits(request: web.Request) -> web.Response:  # noqa: ARG001
        return web.json_response(simulator.limits())

    async def state(request: web.Request) -> web.Response:  # noqa: ARG001
        return web.json_response(
            {
                "trading": simulator.trading,
                "trades": simulator.trades,
                "subscribed": simulator.subscribed,
                "script_done": simulator.script_done,
                "faults": simulator.faults_done,
            }
        )

    return [
        web.post("/sim/fault", fault),
        web.post("/sim/market", market),
        web.get("/sim/truth", truth),
        web.get("/sim/limits", limits),
        web.get("/sim/state", state),
    ]


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise _refusal("the body must be a JSON object")
    return body


def _refusal(reason: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=json.dumps({"error": reason}), content_type="application/json")


def _written(trade: TrueTrade) -> dict[str, Any]:
    return trade._asdict() | {"price": format_decimal(trade.price), "size": format_decimal(trade.size)}
