"""Asking a venue's REST interface: at the pace it allows, with bounds on time and size, errors told apart."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol, Self

import aiohttp

from ashi.contracts.errors import VenueError
from ashi.runtime.metrics import ingest as metrics
from ashi.runtime.metrics.declare import serve_from_zero
from ashi.runtime.settings.parsers import bare_url
from ashi.runtime.wall_clock import now_us
from ashi_ingest.errors import MAX_RETRY_AFTER_S, Reason, classify_error
from ashi_ingest.rest.budget import FIRST, RequestTurns
from ashi_ingest.venues.base import Answer

if TYPE_CHECKING:
    from types import TracebackType

    from ashi.runtime.settings import Secret
    from ashi_ingest.rest.budget import Urgency
    from ashi_ingest.venues.base import Request, Venue

TIMEOUT_S: Final = 10.0
"""For a whole request, its answer included."""
MAX_ANSWER: Final = 32 * 1024 * 1024
"""Bytes, after decompression. The largest answers asked for, lists of all markets, have some megabytes."""

_QUOTED: Final = 300
_CHUNK: Final = 64 * 1024


class RestError(VenueError):
    """A request has failed.

    Attributes:
        retry_after_s: the least time to wait before asking again, seconds; 0 leaves it to a backoff. None: the same
            request would fail again.

    """

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Asks(Protocol):
    """Whoever makes requests to a venue."""

    async def get(self, request: Request, urgency: Urgency = FIRST) -> Answer:
        """Ask when it is this request's turn. Raises RestError when there is no answer that can be used."""


class RestClient:
    """GET requests to one venue, all of a process; an async context manager."""

    def __init__(self, venue: Venue, url: str, api_key: Secret | None) -> None:
        """`url`: of the interface, without a path. `api_key` goes only with requests that need it."""
        self._venue = venue
        self._url = url.rstrip("/")
        self._key = api_key
        limits = venue.limits
        self._turns = RequestTurns(
            limits.request_interval_s, limits.request_window_s, address_weight=limits.address_weight
        )
        self._paused_until_s = 0.0
        self._session: aiohttp.ClientSession | None = None
        serve_from_zero(metrics.rest_requests, *((venue.name, outcome) for outcome in ("ok", "limited", "failed")))

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            headers={"User-Agent": "ashi", "Accept": "application/json"},
            trust_env=True,  # proxies, as the websocket library does
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, request: Request, urgency: Urgency = FIRST) -> Answer:
        """Ask when it is this request's turn: of those that wait, the most urgent comes first.

        A venue that has sent the process away is not asked until that is over.

        Raises:
            RestError: there is no answer, or none that can be used.

        """
        headers = self._key_header(request)
        async with self._turns.turn(request.weight, urgency):
            self._check_pause(request)
            try:
                body = await self._ask(request, headers)
            except (aiohttp.ClientError, OSError) as error:
                raise self._failure(request, error) from error
        metrics.rest_requests.labels(self._venue.name, "ok").inc()
        return Answer(body, now_us())

    def _key_header(self, request: Request) -> dict[str, str]:
        needed = request.api_key
        if needed is None:
            return {}
        if self._key is None:
            raise RestError(f"{self._name(request)} needs an API key: set {needed.setting}", None)
        return {needed.header: self._key.reveal()}

    def _check_pause(self, request: Request) -> None:
        left_s = self._paused_until_s - time.monotonic()
        if left_s > 0:
            raise RestError(
                f"{self._name(request)} was not asked: the venue has told this address to wait, "
                f"{left_s:.1f} s are left. Ask less of it from this address",
                left_s,
            )

    async def _ask(self, request: Request, headers: dict[str, str]) -> bytes:
        if self._session is None:
            raise RuntimeError("use RestClient as an async context manager")
        # No redirect is followed: the key must not go elsewhere.
        async with self._session.get(
            self._url + request.path, params=request.parameters, headers=headers, allow_redirects=False
        ) as response:
            used = response.headers.get(self._venue.limits.used_header or "", "")
            if used.isascii() and used.isdigit():
                self._turns.on_used(int(used))
            body = await self._read(request, response)
            if response.status != 200 and not (request.may_be_refused and response.status == 400):
                text = " ".join(body[:_QUOTED].decode(errors="replace").split())
                raise aiohttp.ClientResponseError(
                    response.request_info,
                    response.history,
                    status=response.status,
                    message=text,
                    headers=response.headers,
                )
            return body

    async def _read(self, request: Request, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            body += chunk
            if len(body) > MAX_ANSWER:
                response.close()
                metrics.rest_requests.labels(self._venue.name, "failed").inc()
                raise RestError(
                    f"{self._name(request)} answers with more than {MAX_ANSWER} bytes: is it the venue?", None
                )
        return bytes(body)

    def _failure(self, request: Request, error: Exception) -> RestError:
        answer = getattr(error, "message", "")
        error_class = classify_error(error)
        banned_s = self._banned_s(answer)
        if banned_s is not None:
            after_s = max(banned_s, error_class.retry_after_s or 0.0)
            error_class = error_class._replace(reason=Reason.LIMITED, retry_after_s=after_s)
        limited = error_class.reason is Reason.LIMITED
        metrics.rest_requests.labels(self._venue.name, "limited" if limited else "failed").inc()
        message = f"{self._name(request)} failed: {error_class.detail}" + (f", {answer}" if answer else "")
        if error_class.retry_after_s is None:
            message += ". Correct ASHI_REST_URL if it is set; else look at what the venue says of this request"
        elif limited:
            self._paused_until_s = max(self._paused_until_s, time.monotonic() + error_class.retry_after_s)
        return RestError(message, error_class.retry_after_s)

    def _banned_s(self, answer: str) -> float | None:
        """For how long this address is still banned, seconds, if the answer says that it is."""
        pattern = self._venue.limits.banned_until
        found = None if pattern is None else pattern.search(answer)
        if found is None:
            return None
        return min(max(int(found[1]) / 1000 - time.time(), 0.0), MAX_RETRY_AFTER_S)

    def _name(self, request: Request) -> str:
        return f"{self._venue.name}: GET {bare_url(self._url)}{request.path}"
