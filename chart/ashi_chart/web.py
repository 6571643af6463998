"""The HTTP side: pages, their files, the websocket and older bars, all below one path, GET only."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Final

from aiohttp import web

from ashi.contracts.errors import UsageError
from ashi.runtime.descriptors import lack_of_descriptors
from ashi.runtime.metrics import chart as metrics
from ashi_chart import wire
from ashi_chart.security import Guard, guarding, refusal, set_headers
from ashi_chart.sessions import Session
from ashi_chart.static_files import read_static_files, respond_with

if TYPE_CHECKING:
    from ashi.runtime.settings import Settings

PAGES: Final = {"": "markets.html", "chart": "chart.html"}
"""What is served at which path below the base path."""
WRONG_TOKEN: Final = 4401
"""Close code: the token was not shown, or it is another one."""
WRONG_ORIGIN: Final = 4403
"""Close code: pages of that origin are not let in."""
WAITING: Final = 1_024
"""So many connections may wait to be accepted: all pages come at once when the server was restarted."""
SHUTDOWN_S: Final = 2.0


class ChartServer:
    """Serves the chart within the running loop, from `start` to `close`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._base = settings.chart_base_path
        self._guard = Guard.of(settings)
        self._files = read_static_files()
        self._id = secrets.token_hex(8)
        self._sessions: set[Session] = set()
        application = web.Application(middlewares=[guarding(self._guard)])
        application.on_response_prepare.append(set_headers)
        for path in PAGES:
            application.router.add_get(self._base + path, self._get_page)
        if self._base != "/":
            application.router.add_get(self._base.rstrip("/"), self._get_base)
        application.router.add_get(self._base + "static/{name:.+}", self._get_file)
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
        address, number = self._runner.addresses[0][:2]
        return (
            f"http://[{address}]:{number}{self._base}" if ":" in address else f"http://{address}:{number}{self._base}"
        )

    async def close(self) -> None:
        """Stop serving. May be called at any time."""
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
        if len(self._sessions) >= self._settings.chart_clients:
            metrics.chart_refused.labels("full").inc()
            return refusal(503, f"{len(self._sessions)} pages are connected, as many as ASHI_CHART_CLIENTS allows")
        if not self._guard.takes_origin(request.headers.get("Origin"), request.headers.get("Host", "")):
            metrics.chart_refused.labels("origin").inc()
            return await _closed(request, WRONG_ORIGIN, "pages of this origin are not let in: see ASHI_CHART_ORIGINS")
        if not self._guard.takes_token(request):
            metrics.chart_refused.labels("token").inc()
            return await _closed(request, WRONG_TOKEN, "a token is needed")
        session = Session(request, self._state, self._hello)
        self._sessions.add(session)
        try:
            return await session.run()
        finally:
            self._sessions.discard(session)

    def _hello(self) -> bytes:
        names = [str(timeframe) for timeframe in self._settings.timeframes]
        return wire.hello(names, _now_us(), self._id)

    def _state(self) -> bytes:
        return wire.state_message("ok", 0.0, _now_us())


async def _closed(request: web.Request, code: int, reason: str) -> web.StreamResponse:
    """Close a websocket at once, so that the page learns why."""
    socket = web.WebSocketResponse(max_msg_size=wire.MOST_BYTES_ASKED, timeout=1.0)
    await socket.prepare(request)
    await socket.close(code=code, message=reason.encode())
    return socket


def _now_us() -> int:
    return time.time_ns() // 1_000
