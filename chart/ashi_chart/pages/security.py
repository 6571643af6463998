"""Who is answered: by the name that was asked for, the origin of the page that asks, and the token if there is one.

The server only reads, and what it shows may still be nobody else's business. A browser that looks at some other site
can be made to ask here, so what browsers say of themselves is checked; a token keeps out everybody else.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from aiohttp import web

from ashi.runtime.metrics import chart as metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from ashi.runtime.settings import Secret, Settings

HEADERS: Final[Mapping[str, str]] = {
    # Everything is ours and comes from here; nothing is inline, and no other page may show ours within itself.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer."""

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Guard:
    """What is asked of whoever asks.

    Attributes:
        hosts: the names that the server may be asked for; empty: any. Where only this machine is served, a name that
            is not of it is one that somebody's name server has led here (DNS rebinding).
        origins: of pages that are served elsewhere or behind a proxy that changes the Host, such as
            `https://charts.example.com`; a page of this server's own is always let in.
        token: what must be shown to see data, the newest that its file holds; None: nothing.

    """

    hosts: frozenset[str]
    origins: frozenset[str]
    token: Secret | None

    @classmethod
    def of(cls, settings: Settings) -> Guard:
        """By the settings `ASHI_CHART_HOST`, `ASHI_CHART_ORIGINS` and `ASHI_CHART_TOKEN`."""
        origins = frozenset(settings.chart_origins)
        hosts: Collection[str] = ()
        if is_loopback(settings.chart_host):
            hosts = {"localhost", settings.chart_host.lower(), *(urlsplit(each).hostname or "" for each in origins)}
        return cls(frozenset(hosts), origins, settings.chart_token)

    def takes_host(self, host: str) -> bool:
        """Whether the server may be asked for by this name, that of the header Host: `127.0.0.1:8080`."""
        if not self.hosts:
            return True
        found = _HOST.fullmatch(host)
        return found is not None and (found[1].lower() in self.hosts or is_loopback(found[1]))

    def takes_origin(self, origin: str | None, host: str) -> bool:
        """Whether a page of this origin may ask; None is of no page: a program, or a browser's own address bar."""
        # By either scheme: where something before us ends TLS, only that knows which it was.
        own = {f"{scheme}://{host.lower()}" for scheme in ("http", "https")}
        return origin is None or origin.lower() in self.origins | own

    def takes_token(self, request: web.Request) -> bool:
        """Whether the token was shown, as `Authorization: Bearer …` or `?token=…`; in a time that tells nothing."""
        if self.token is None:
            return True
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            shown = request.query.get("token", "")
        return hmac.compare_digest(shown.strip().encode("utf-8", "surrogateescape"), self.token.reveal().encode())


def is_loopback(name: str) -> bool:
    """Whether an address or name is of this machine alone."""
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def refusal(status: int, sentence: str) -> web.Response:
    """An answer that says in words why there is no other."""
    return web.json_response({"error": sentence}, status=status)


def is_socket(request: web.Request) -> bool:
    """Whether a websocket is wanted. A page learns nothing of a handshake that is refused: it is let in to be told."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


def guarding(guard: Guard) -> Callable[..., Awaitable[web.StreamResponse]]:
    """Middleware that lets in whom `guard` takes; token, and origin of a websocket, are asked for by the handlers."""

    @web.middleware
    async def let_in(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
        if not guard.takes_host(host):
            metrics.chart_refused.labels("host").inc()
            return refusal(421, f"this server is not {host[:100]!r}: add its origin to ASHI_CHART_ORIGINS")
        if not guard.takes_origin(origin, host) and not is_socket(request):
            metrics.chart_refused.labels("origin").inc()
            return refusal(403, f"pages of {(origin or '')[:100]!r} are not let in: see ASHI_CHART_ORIGINS")
        return await handler(request)

    return let_in


async def set_headers(_: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`: of every answer, errors too."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
