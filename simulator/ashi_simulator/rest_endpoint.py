"""The REST interface as a whole: limits, and faults on command. What is answered is up to the venue's server."""

from __future__ import annotations

import asyncio
import math
from email.utils import formatdate
from typing import TYPE_CHECKING

from aiohttp import web

from ashi_simulator.executions import PER_MS, PER_S
from ashi_simulator.rest_faults import RestFaults
from ashi_simulator.venue_server import RestAnswer, RestRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ashi_simulator.exchange import Exchange
    from ashi_simulator.executions import Execution
    from ashi_simulator.limit_usage import LimitUsage
    from ashi_simulator.venue_server import Route, VenueServer


class RestEndpoint:
    """Answers requests.

    Attributes:
        faults: what is wrong with it.

    """

    def __init__(self, venue_server: VenueServer, exchange: Exchange, usage: LimitUsage) -> None:
        self.faults = RestFaults()
        self._venue_server = venue_server
        self._exchange = exchange
        self._usage = usage
        self._retry_at: dict[str, float] = {}

    def handler(self, route: Route) -> Callable[[web.Request], Awaitable[web.Response]]:
        """What aiohttp calls for a request of that path."""

        async def handle(request: web.Request) -> web.Response:
            return await self._serve(route, request)

        return handle

    async def _serve(self, route: Route, request: web.Request) -> web.Response:
        address = request.remote or ""
        now = asyncio.get_running_loop().time()
        if now < self._retry_at.get(address, 0.0):
            self._usage.too_early += 1
        wait_s = self._usage.rest.take(address, route.weight_of(request.query), now)
        if wait_s is None and self.faults.refusals:
            self.faults.refusals -= 1
            wait_s = self.faults.refusal_retry_s
        if wait_s is not None:
            self._retry_at[address] = now + wait_s
            headers = {"Retry-After": str(math.ceil(wait_s))}
            return self._response(RestAnswer(self._venue_server.too_many_requests(None), 429), headers)
        if self.faults.hangs:
            self.faults.hangs -= 1
            return await self._hang(request)
        return self._answer(route, request, address, now)

    def _answer(self, route: Route, request: web.Request, address: str, now: float) -> web.Response:
        told = self._exchange.told_time()
        refused = self.faults.refused(self._venue_server, now, told // PER_MS)
        if refused is not None:
            retry_s = self.faults.refusal_retry(now)
            if retry_s is None:
                return self._response(refused)
            self._retry_at[address] = now + retry_s
            return self._response(refused, {"Retry-After": str(retry_s)})
        answer = route.answer(RestRequest(request.query, request.headers, self._executions, told))
        answer = self.faults.garbled(answer, self._venue_server, now)
        return self._response(answer, {"X-MBX-USED-WEIGHT-1M": str(self._usage.rest.used(address))})

    def _executions(self, market: str) -> Sequence[Execution]:
        lags = self.faults.lags(asyncio.get_running_loop().time())
        now = self._exchange.now()
        return self._exchange.histories[market].known(now - self.faults.lag if lags else now)

    async def _hang(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.faults.hang_s)
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=504)

    def _response(self, answer: RestAnswer, headers: dict[str, str] | None = None) -> web.Response:
        """With the date that the venue's clock shows."""
        date = {"Date": formatdate(self._exchange.told_time() / PER_S, usegmt=True)}
        html = answer.body.startswith(b"<")
        return web.Response(
            body=answer.body,
            status=answer.status,
            content_type="text/html" if html else "application/json",
            headers=date | (headers or {}),
        )
