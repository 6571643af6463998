"""Which errors of a venue may be tried again, and how soon: one answer for the websocket and for REST alike."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

import aiohttp
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
)

from ashi.runtime.descriptors import lack_of_descriptors
from ashi.runtime.settings.parsers import redact_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LIMITED_S: Final = 10.0
"""How long to stay away after `too many requests` when the venue does not say how long."""
MAX_RETRY_AFTER_S: Final = 86_400.0
"""However long a venue sends us away: after a day we ask again."""

_TOO_MANY: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.IM_A_TEAPOT)
"""429, and 418: with it Binance says that an address which went on after 429 is banned for a while."""
_TOO_BIG: Final = 1009
_PING_TIMEOUT: Final = 1011


class Reason(StrEnum):
    """Why a connection ended, or why none could be made: the label of `ashi_reconnects_total`."""

    UNREACHABLE = "unreachable"
    """None could be made: DNS, network, TLS, a proxy, or an answer that is no websocket handshake."""
    REJECTED = "rejected"
    """None could be made: the venue answered the handshake with an HTTP error."""
    LIMITED = "limited"
    """None could be made: the venue says that there were too many requests from this address."""
    CLOSED = "closed"
    """The venue closed it by a close frame."""
    LOST = "lost"
    """It broke off without a close frame, or a ping was not answered."""
    PROTOCOL = "protocol"
    """What came is not the websocket protocol, or a frame was too large."""
    SILENT = "silent"
    """Nothing came for `Limits.silence_s`."""
    UNANSWERED = "unanswered"
    """A subscription was neither acknowledged nor refused."""
    REFUSED = "refused"
    """The venue refused every market of it for good; there is no next one."""
    UNUSED = "unused"
    """None of its markets is wanted any more."""
    RENEWED = "renewed"
    """The next one had taken over before the venue would have closed it."""
    BUFFER_FULL = "buffer_full"
    """We closed it, because Kafka takes less than the venue sends."""
    STOPPED = "stopped"
    """The process stops."""


class ErrorClass(NamedTuple):
    """What an error means for whoever wants to try again.

    `retry_after_s`: None for a fatal error; else the least time to wait, seconds; 0 leaves it to a backoff.
    `asked_s`: how long the venue itself asks to be left alone (`Retry-After`), seconds, also with a fatal error.
    """

    reason: Reason
    detail: str
    retry_after_s: float | None
    asked_s: float = 0.0


def classify_error(error: Exception) -> ErrorClass:
    """Tell whether trying again may help.

    The errors are those that opening or reading a websocket (library `websockets`) or a REST request (`aiohttp`) raise:

        no such host, refused, reset, timed out, TLS, a proxy       retryable: networks and venues come back
        too few file descriptors                                    retryable: some may be freed; told as what it is
        HTTP 5xx                                                    retryable
        HTTP 429 and 418                                            retryable after `Retry-After`, or LIMITED_S
        HTTP 408 and 425                                            retryable
        HTTP 4xx else                                               fatal: wrong URL, key or parameters, or a blocked
                                                                    address; the same request fails again. (But once
                                                                    a connection was possible, the session tries
                                                                    again, see `ashi_ingest.websocket.session`)
        HTTP of another kind (a redirect, a web page)               retryable: venues in maintenance do so
        an answer that is not HTTP, or no websocket handshake       retryable
        a connection that ends, by a close frame or without one     retryable
        a URL (of the venue or of the proxy) that is none           fatal
        anything else                                               raised again: it is a bug

    This is wider than the default of `websockets.asyncio.client.process_exception`, which gives up on, for example,
    429 and a page of maintenance: a feed is to be left alone for months.
    """
    match error:
        case InvalidURI() | InvalidProxy() | aiohttp.InvalidURL():
            return ErrorClass(Reason.UNREACHABLE, redact_url(str(error)), None)
        case InvalidStatus() | InvalidProxyStatus():
            return _classify_status(error.response.status_code, error.response.headers)
        case aiohttp.ClientResponseError() if error.status:
            return _classify_status(error.status, error.headers or {})
        case ConnectionClosed():
            return ErrorClass(*_classify_close(error), 0.0)
        case InvalidHandshake() | aiohttp.ClientError() | OSError():  # OSError: also TimeoutError and those of TLS
            return ErrorClass(Reason.UNREACHABLE, _in_words(error), 0.0)
        case _:
            raise error


def _classify_status(status: int, headers: Mapping[str, str]) -> ErrorClass:
    try:
        detail = f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        detail = f"HTTP {status}"
    try:
        after_s = read_retry_after(headers.get("Retry-After"))
    except LookupError:  # it comes twice, which websockets' headers refuse to read
        after_s = None
    if status in _TOO_MANY:
        return ErrorClass(Reason.LIMITED, detail, LIMITED_S if after_s is None else after_s)
    if 400 <= status < 500 and status not in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY):
        return ErrorClass(Reason.REJECTED, detail, None, after_s or 0.0)
    return ErrorClass(Reason.REJECTED, detail, after_s or 0.0)


def _classify_close(error: ConnectionClosed) -> tuple[Reason, str]:
    received, sent = error.rcvd, error.sent
    if received is not None and error.rcvd_then_sent is not False:
        return Reason.CLOSED, f"the venue closed it with {received}"
    if sent is None or sent.code == _PING_TIMEOUT:
        return Reason.LOST, "a ping was not answered" if sent is not None else "it broke off without a close frame"
    what = "a frame was too large" if sent.code == _TOO_BIG else "what came is not the websocket protocol"
    return Reason.PROTOCOL, f"{what}: {sent.reason or sent.code}"


def _in_words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return lack_of_descriptors(error) or redact_url(str(error)) or type(error).__name__


def read_retry_after(value: str | None, now_s: Callable[[], float] = time.time) -> float | None:
    """Seconds to wait by a `Retry-After` header (RFC 9110, 10.2.3: seconds or a date); None if it says nothing."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        after_s = float(text[:12])
    else:
        try:
            after_s = parsedate_to_datetime(text).timestamp() - now_s()
        except (ValueError, OverflowError):
            return None
    return min(max(after_s, 0.0), MAX_RETRY_AFTER_S)
