"""What a person or another process asks of a running simulator, over HTTP.

POST /sim/fault   {"fault": "drop", "args": {"connections": "one"}}
POST /sim/market  {"trading": true}
GET  /sim/truth   a line of JSON for each trade that must have been published; ?since_us=…
GET  /sim/limits  what clients took of the limits
GET  /sim/state   whether it trades, how many trades there were, what is subscribed to
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ashi.contracts.decimals import format_decimal
from ashi.contracts.errors import UsageError
from ashi_simulator.faults import FAULTS

if TYPE_CHECKING:
    from ashi_simulator.executions import TrueTrade
    from ashi_simulator.server import Simulator


def control_routes(simulator: Simulator) -> list[web.RouteDef]:
    """The routes under /sim/."""

    async def fault(request: web.Request) -> web.Response:
        asked = await _object(request)
        name, arguments = asked.get("fault"), asked.get("args", {})
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
        asked = await request.json()
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        raise _refusal("the body must be a JSON object")
    return asked


def _refusal(reason: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=json.dumps({"error": reason}), content_type="application/json")


def _written(trade: TrueTrade) -> dict[str, Any]:
    return trade._asdict() | {"price": format_decimal(trade.price), "size": format_decimal(trade.size)}
