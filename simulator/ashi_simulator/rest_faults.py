"""What is wrong with the REST interface on purpose, and what it answers then."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ashi_simulator.executions import PER_MS
from ashi_simulator.faults import CUT, HTML, NULL, OTHER_SHAPE
from ashi_simulator.venue_server import RestAnswer

if TYPE_CHECKING:
    from ashi_simulator.venue_server import VenueServer

PAGE: Final = (
    b"<!DOCTYPE html><html><head><title>Just a moment...</title></head>"
    b"<body><h1>We are checking your browser</h1></body></html>"
)
INTERNAL_ERROR: Final = b'{"code":-1000,"msg":"An unknown error occured while processing the request."}'
LIMITED: Final = (418, 429)
UNAVAILABLE_FOR_LEGAL_REASONS: Final = 451


@dataclass(slots=True)
class _Refusal:
    until: float
    status: int
    retry_after_s: int
    banned: bool


@dataclass(slots=True)
class RestFaults:
    """Times are those of the event loop, in seconds.

    Attributes:
        refusals: so many requests more are answered 429, with `refusal_retry_s` as Retry-After.
        failures: so many more are answered `failure_status`.
        hangs: so many more get no answer; after `hang_s` their connection is broken.
        lag: what happened within the last so many 100 ns is not known yet.

    """

    refusals: int = 0
    refusal_retry_s: float = 0.0
    failures: int = 0
    failure_status: int = 500
    hangs: int = 0
    hang_s: float = 0.0
    lag: int = 0
    _lag_until: float = 0.0
    _refusal: _Refusal | None = None
    _shape: str = HTML
    _garbled_until: float = 0.0

    def lag_behind(self, milliseconds: int, until: float) -> None:
        """Know nothing of the last `milliseconds`."""
        self.lag, self._lag_until = milliseconds * PER_MS, until

    def refuse(self, status: int, until: float, retry_after_s: int, *, banned: bool) -> None:
        """Answer everything with a status."""
        self._refusal = _Refusal(until, status, retry_after_s, banned)

    def garble(self, shape: str, until: float) -> None:
        """Answer 200 with something else: see `faults.SHAPES`."""
        self._shape, self._garbled_until = shape, until

    def lags(self, now: float) -> bool:
        """Whether it does not know of the last `lag`."""
        return now < self._lag_until

    def refusal_retry(self, now: float) -> int | None:
        """For how many seconds a client is told to go away, if it is."""
        refusal = self._refusal
        return refusal.retry_after_s or None if refusal is not None and now < refusal.until else None

    def refused(self, venue_server: VenueServer, now: float, told_ms: int) -> RestAnswer | None:
        """What is answered instead of an answer, if something is. `told_ms`: what the venue's clock shows."""
        if self.failures:
            self.failures -= 1
            return RestAnswer(INTERNAL_ERROR, self.failure_status)
        refusal = self._refusal
        if refusal is None or now >= refusal.until:
            return None
        body = PAGE
        if refusal.status in LIMITED:
            body = venue_server.too_many_requests(told_ms + refusal.retry_after_s * 1000 if refusal.banned else None)
        elif refusal.status == UNAVAILABLE_FOR_LEGAL_REASONS:
            body = b'{"code":0,"msg":"Service unavailable from a restricted location."}'
        return RestAnswer(body, refusal.status)

    def garbled(self, answer: RestAnswer, venue_server: VenueServer, now: float) -> RestAnswer:
        """What becomes of an answer."""
        if now >= self._garbled_until:
            return answer
        if self._shape == HTML:
            return RestAnswer(PAGE)
        if self._shape == NULL:
            return RestAnswer(b"null")
        if self._shape == OTHER_SHAPE:
            return RestAnswer(b'{"result":{"page":{"rows":[[1,2,3]]}}}')
        if self._shape == CUT:
            return RestAnswer(answer.body[: math.ceil(len(answer.body) / 2)])
        return venue_server.maintenance()
