"""Connections that are no pages, or not yet: those that nothing comes of are ended, and there are only so many.

The library waits for ever for the first request of a connection and for a client to take an answer, and takes in
connections without a bound; a token is asked for with a request, so whoever reaches the port could use up memory and
file descriptors without one. Pages over a websocket are `ashi_chart.pages.sessions`' to end.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.runtime.metrics import chart as metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from aiohttp import web

IDLE_S: Final = 75.0
"""A connection that asks for nothing more, or takes nothing of an answer, is ended after so long: later than a proxy in
front gives up one that it keeps, which is 60 s as a rule."""
MOST: Final = 1_000
"""So many there may be beside the pages; of more the longest idle are ended."""
LOOK_S: Final = 1.0


class _State(NamedTuple):
    """What changes when something comes of a connection."""

    requests: int
    unsent_bytes: int


class Connections:
    """The connections of a server that are no pages."""

    def __init__(self, server: web.Server, pages: Callable[[], Collection[object]]) -> None:
        """`pages`: gives the handlers of those that are."""
        self._server = server
        self._pages = pages
        self._since: dict[web.RequestHandler, tuple[_State, float]] = {}

    async def watch(self) -> None:
        """Look at them again and again, until cancelled."""
        while True:
            self.look(time.monotonic())
            await asyncio.sleep(LOOK_S)

    def look(self, now_s: float) -> None:
        """End those that have been idle for too long, and of too many the longest idle."""
        pages = self._pages()
        since: dict[web.RequestHandler, tuple[_State, float]] = {}
        for handler in self._server.connections:
            transport = handler.transport
            if transport is None or handler in pages:
                continue
            state = _State(handler._request_count, transport.get_write_buffer_size())
            if handler._request_in_progress and not state.unsent_bytes:
                continue  # it waits for us
            known = self._since.get(handler)
            since[handler] = known if known is not None and known[0] == state else (state, now_s)
        longest_idle = sorted(since, key=lambda handler: since[handler][1])
        too_many = max(len(longest_idle) - MOST, 0)
        for place, handler in enumerate(longest_idle):
            if (place < too_many or now_s - since[handler][1] > IDLE_S) and handler.transport is not None:
                handler.transport.abort()
                metrics.chart_refused.labels("idle").inc()
                del since[handler]
        self._since = since
