"""The REST interface as a whole: limits, and faults on command. What is answered is up to the venue's server."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from aiohttp import web

from ashi_simulator.executions import PER_MS
from ashi_simulator.venue_server import RestRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from ashi_simulator.executions import Execution, TradeHistory
    from ashi_simulator.limit_usage import LimitUsage
    from ashi_simulator.venue_server import Route, VenueServer


class RestEndpoint:
    """Answers requests.

    Attributes:
        refusals: so many requests more are answered 429, with `refusal_retry_s` as Retry-After.
        failures: so many more are answered `failure_status`.
        hangs: so many more get no answer; after `hang_s` their connection is broken.
        lag: what happened within the last so many 100 ns is not known yet.

    """

    def __init__(
        self,
        venue_server: VenueServer,
        histories: Mapping[str, TradeHistory],
        usage: LimitUsage,
        now: Callable[[], int],
    ) -> None:
        self._venue_server = venue_server
        self._histories = histories
        self._usage = usage
        self._now = now
        self._retry_at: dict[str, float] = {}
        self._lag_until = 0.0
        self.refusals = 0
        self.refusal_retry_s = 0.0
        self.failures = 0
        self.failure_status = 500
        self.hangs = 0
        self.hang_s = 0.0
        self.lag = 0

    def lag_behind(self, milliseconds: int, seconds: float) -> None:
        """For `seconds`, know nothing of the last `milliseconds`."""
        self.lag = milliseconds * PER_MS
        self._lag_until = asyncio.get_running_loop().time() + seconds

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
        wait_s = self._usage.rest.take(address, route.weight, now)
        if wait_s is None and self.refusals:
            self.refusals -= 1
            wait_s = self.refusal_retry_s
        if wait_s is not None:
            self._retry_at[address] = now + wait_s
            return _json(self._venue_server.too_many_requests(), 429, {"Retry-After": str(math.ceil(wait_s))})
        if self.hangs:
            self.hangs -= 1
            return await self._hang(request)
        if self.failures:
            self.failures -= 1
            return _json(
                b'{"code":-1000,"msg":"An unknown error occured while processing the request."}', self.failure_status
            )
        answer = route.answer(RestRequest(request.query, request.headers, self._executions, self._now()))
        return _json(answer.body, answer.status, {"X-MBX-USED-WEIGHT-1M": str(self._usage.rest.used(address))})

    def _executions(self, market: str) -> Sequence[Execution]:
        lags = asyncio.get_running_loop().time() < self._lag_until
        return self._histories[market].known(self._now() - self.lag if lags else self._now() + PER_MS)

    async def _hang(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.hang_s)
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=504)


def _json(body: bytes, status: int, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)
