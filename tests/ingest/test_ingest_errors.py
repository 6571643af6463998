"""Which errors of a venue may be tried again, and how long a `Retry-After` asks to wait."""

from __future__ import annotations

import socket
import ssl
from email.utils import formatdate
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.exceptions import (
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidMessage,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
)
from websockets.frames import Close
from websockets.http11 import Response

from ashi_ingest.errors import LIMITED_S, MAX_RETRY_AFTER_S, Reason, classify_error, read_retry_after


def refused(code, headers=None):
    request: Any = None  # what was asked says nothing
    return aiohttp.ClientResponseError(request, (), status=code, headers=headers)


def status(code, **headers):
    return InvalidStatus(Response(code, "", Headers(**{key.replace("_", "-"): text for key, text in headers.items()})))


@pytest.mark.parametrize(
    ("error", "reason", "retry_after_s"),
    [
        (socket.gaierror(-2, "Name or service not known"), Reason.UNREACHABLE, 0.0),
        (ConnectionRefusedError(111, "refused"), Reason.UNREACHABLE, 0.0),
        (ConnectionResetError(104, "reset"), Reason.UNREACHABLE, 0.0),
        (TimeoutError(), Reason.UNREACHABLE, 0.0),
        (ssl.SSLCertVerificationError("expired"), Reason.UNREACHABLE, 0.0),
        (InvalidMessage("did not receive a valid HTTP response"), Reason.UNREACHABLE, 0.0),
        (InvalidUpgrade("Upgrade", "h2c"), Reason.UNREACHABLE, 0.0),
        (InvalidProxyStatus(Response(503, "", Headers())), Reason.REJECTED, 0.0),
        (status(500), Reason.REJECTED, 0.0),
        (status(503, Retry_After="7"), Reason.REJECTED, 7.0),
        (status(599), Reason.REJECTED, 0.0),
        (status(429), Reason.LIMITED, LIMITED_S),
        (status(429, Retry_After="3"), Reason.LIMITED, 3.0),
        (status(418, Retry_After="120"), Reason.LIMITED, 120.0),
        (status(408), Reason.REJECTED, 0.0),
        (status(302), Reason.REJECTED, 0.0),
        (status(200), Reason.REJECTED, 0.0),
        (status(400), Reason.REJECTED, None),
        (status(403), Reason.REJECTED, None),
        (status(404), Reason.REJECTED, None),
        (status(451), Reason.REJECTED, None),
        (InvalidProxyStatus(Response(407, "", Headers())), Reason.REJECTED, None),
        (InvalidURI("http://x", "scheme"), Reason.UNREACHABLE, None),
        (InvalidProxy("x://y", "scheme"), Reason.UNREACHABLE, None),
        (aiohttp.InvalidURL("::"), Reason.UNREACHABLE, None),
        (aiohttp.ServerDisconnectedError(), Reason.UNREACHABLE, 0.0),
        (aiohttp.ClientPayloadError("half"), Reason.UNREACHABLE, 0.0),
        (refused(418, {"Retry-After": "9"}), Reason.LIMITED, 9.0),
        (refused(400), Reason.REJECTED, None),
        (ConnectionClosedOK(Close(1000, ""), Close(1000, ""), True), Reason.CLOSED, 0.0),
        (ConnectionClosedError(Close(1006 + 5, "restart"), None, None), Reason.CLOSED, 0.0),
        (ConnectionClosedError(None, None, None), Reason.LOST, 0.0),
        (ConnectionClosedError(None, Close(1011, "keepalive ping timeout"), None), Reason.LOST, 0.0),
        (ConnectionClosedError(None, Close(1009, "too big"), None), Reason.PROTOCOL, 0.0),
        (ConnectionClosedError(Close(1009, "too big"), Close(1009, "too big"), False), Reason.PROTOCOL, 0.0),
        (ConnectionClosedError(None, Close(1002, "invalid opcode"), None), Reason.PROTOCOL, 0.0),
    ],
)
def test_what_may_be_tried_again_is_told_from_what_may_not(error, reason, retry_after_s):
    error_class = classify_error(error)
    assert (error_class.reason, error_class.retry_after_s) == (reason, retry_after_s)
    assert error_class.detail


def test_an_error_that_is_no_venues_is_raised_again():
    with pytest.raises(KeyError):
        classify_error(KeyError("a bug"))


def test_a_retry_after_that_comes_twice_is_as_good_as_none():
    headers = Headers()
    headers["Retry-After"] = "5"
    headers["Retry-After"] = "6"
    assert classify_error(InvalidStatus(Response(429, "", headers))).retry_after_s == LIMITED_S


def test_retry_after_is_read_as_seconds_or_as_a_date():
    now_s = 1_700_000_000.0
    assert read_retry_after("17", lambda: now_s) == 17.0
    assert read_retry_after(formatdate(now_s + 90, usegmt=True), lambda: now_s) == 90.0
    assert read_retry_after(formatdate(now_s - 90, usegmt=True), lambda: now_s) == 0.0


@given(st.one_of(st.none(), st.text(max_size=30), st.integers().map(str)))
def test_any_retry_after_is_bounded_or_ignored(text):
    after_s = read_retry_after(text)
    assert after_s is None or 0.0 <= after_s <= MAX_RETRY_AFTER_S
