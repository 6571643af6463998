"""The HTTP side: pages, their files, the websocket and older bars, all below one path, GET only."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Final

from aiohttp import web

from ashi.contracts.errors import StorageError, UsageError
from ashi.runtime.descriptors import lack_of_descriptors
from ashi.runtime.metrics import chart as metrics
from ashi_chart import wire
from ashi_chart.pages.connections import Connections
from ashi_chart.pages.security import Guard, guarding, refusal, set_headers
from ashi_chart.pages.sessions import Session
from ashi_chart.pages.static_files import read_static_files, respond_with
from ashi_chart.series.active import Key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ashi.runtime.settings import Settings
    from ashi_chart.board import Board

PAGES: Final = {"": "markets.html", "chart": "chart.html"}
"""What is served at which path below the base path."""
WRONG_TOKEN: Final = 4401
"""Close code: the token was not shown, or it is another one."""
WRONG_ORIGIN: Final = 4403
"""Close code: pages of that origin are not let in."""
MAX_TIME_US: Final = 2**53 - 1
WAITING: Final = 1_024
"""So many connections may wait to be accepted: all pages come at once when the server was restarted."""
SHUTDOWN_S: Final = 2.0


class ChartServer:
    """Serves the chart within the running loop, from `start` to `close`.

    Attributes:
        board: what is known.
        sessions: the pages that are connected.

    """

    def __init__(self, settings: Settings, board: Board) -> None:
        self._settings = settings
        self.board = board
        self._base = settings.chart_base_path
        self._guard = Guard.of(settings)
        self._files = read_static_files()
        self._id = secrets.token_hex(8)
        self.sessions: set[Session] = set()
        self._is_closing = False
        self._watching: asyncio.Task[None] | None = None
        application = web.Application(middlewares=[guarding(self._guard)])
        application.on_response_prepare.append(set_headers)
        for path in PAGES:
            application.router.add_get(self._base + path, self._get_page)
        if self._base != "/":
            application.router.add_get(self._base.rstrip("/"), self._get_base)
        application.router.add_get(self._base + "static/{name:.+}", self._get_file)
        application.router.add_get(self._base + "api/bars", self._get_bars)
        application.router.add_get(self._base + "ws", self._get_socket, allow_head=False)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_S, max_line_size=4_096)

    async def start(self) -> str:
        """Begin; the address of the first page. Raises UsageError when the port or address cannot be had."""
        host, port = self._settings.chart_host, self._settings.chart_port
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port, backlog=WAITING).start()
        except OSError as error:
            why = lack_of_descriptors(error) or f"{error.strerror}; see ASHI_CHART_HOST and ASHI_CHART_PORT"
            raise UsageError(f"cannot serve the chart on {host} port {port}: {why}") from None
        if not self._runner.addresses:
            raise UsageError(f"cannot serve the chart on {host} port {port}: no socket can be made there")
        assert self._runner.server is not None  # noqa: S101 - it has been set up
        connections = Connections(self._runner.server, lambda: {session.handler for session in self.sessions})
        self._watching = asyncio.create_task(connections.watch())
        address, number = self._runner.addresses[0][:2]
        return (
            f"http://[{address}]:{number}{self._base}" if ":" in address else f"http://{address}:{number}{self._base}"
        )

    async def close(self) -> None:
        """Stop serving, and send all pages away. May be called at any time."""
        self._is_closing = True
        if self._watching is not None:
            self._watching.cancel()
        # Whatever becomes of each: where a page that takes nothing is given up at this moment, so is what waits for it.
        await asyncio.gather(*(session.close() for session in self.sessions), return_exceptions=True)
        await self._runner.cleanup()

    async def _get_page(self, request: web.Request) -> web.StreamResponse:
        return self._file(PAGES[request.path.removeprefix(self._base)], request)

    async def _get_base(self, _: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(self._base)

    async def _get_file(self, request: web.Request) -> web.StreamResponse:
        return self._file(request.match_info["name"], request)

    def _file(self, name: str, request: web.Request) -> web.StreamResponse:
        file = self._files.get(name)
        return refusal(404, "there is no such file") if file is None else respond_with(file, request)

    async def _get_socket(self, request: web.Request) -> web.StreamResponse:
        if self._is_closing:
            return refusal(503, "the server stops")
        if len(self.sessions) >= self._settings.chart_clients:
            metrics.chart_refused.labels("full").inc()
            return refusal(503, f"{len(self.sessions)} pages are connected, as many as ASHI_CHART_CLIENTS allows")
        if not self._guard.takes_origin(request.headers.get("Origin"), request.headers.get("Host", "")):
            metrics.chart_refused.labels("origin").inc()
            return await _closed(request, WRONG_ORIGIN, "pages of this origin are not let in: see ASHI_CHART_ORIGINS")
        if not self._guard.takes_token(request):
            metrics.chart_refused.labels("token").inc()
            return await _closed(request, WRONG_TOKEN, "a token is needed")
        session = Session(request, self.board, self._id)
        self.sessions.add(session)
        try:
            return await session.run()
        finally:
            self.sessions.discard(session)

    async def _get_bars(self, request: web.Request) -> web.StreamResponse:
        if not self._guard.takes_token(request):
            metrics.chart_refused.labels("token").inc()
            return refusal(401, "a token is needed: Authorization: Bearer …")
        query = request.query
        try:
            key = Key(query.get("symbol", "")[:100], query.get("timeframe", "")[:10])
            before = _number(query, "before", 1, MAX_TIME_US)
            limit = _number(query, "limit", 1, wire.MOST_OLDER, 1_000)
            body = await self.board.older(key, before, limit)
        except UsageError as error:
            return refusal(400, str(error))
        except StorageError as error:
            return refusal(503, str(error))
        response = web.Response(body=body, content_type="application/json")
        response.enable_compression()
        return response


def _number(query: Mapping[str, str], name: str, least: int, most: int, default: int | None = None) -> int:
    """A number of a request. Raises UsageError."""
    text = query.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 20 or not least <= int(text) <= most:
        raise UsageError(f"{name} is to be a whole number from {least} to {most}")
    return int(text)


async def _closed(request: web.Request, code: int, reason: str) -> web.StreamResponse:
    """Close a websocket at once, so that the page learns why."""
    socket = web.WebSocketResponse(max_msg_size=wire.MOST_BYTES_ASKED, timeout=1.0)
    await socket.prepare(request)
    await socket.close(code=code, message=reason.encode())
    return socket
