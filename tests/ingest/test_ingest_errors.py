from __future__ import annotations

import asyncio
import random
import socket
import ssl
from email.utils import formatdate
from itertools import pairwise

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

from ashi.runtime.retry import Backoff
from ashi_ingest.errors import LIMITED_S, MAX_RETRY_AFTER_S, RateLimiter, Reason, classify_error, read_retry_after


class Time:
    """A clock that only sleeping moves, and a task that sleeps less than it asked for, as timers do."""

    def __init__(self, short=0.0):
        self.now_s = 1000.0
        self.short = short

    def clock(self):
        return self.now_s

    async def sleep(self, seconds):
        await asyncio.sleep(0)
        self.now_s += max(seconds - self.short, 1e-6)


def status(code, **headers):
    return InvalidStatus(Response(code, "", Headers(**{key.replace("_", "-"): text for key, text in headers.items()})))


@given(st.integers(1, 40), st.floats(0, 1))
def test_a_wait_is_never_longer_than_a_ceiling_that_doubles_up_to_the_cap(tries, share):
    backoff = Backoff(0.5, 30.0, uniform=lambda low, high: low + (high - low) * share)
    waits = [backoff.next_s() for _ in range(tries)]
    ceilings = [min(0.5 * 2**number, 30.0) for number in range(tries)]
    assert waits == pytest.approx([ceiling * share for ceiling in ceilings])


def test_waits_are_spread_over_the_whole_range_below_the_ceiling():
    uniform = random.Random(5).uniform
    waits = [Backoff(10.0, 30.0, uniform=uniform).next_s() for _ in range(1000)]
    assert min(waits) < 0.5
    assert max(waits) > 9.5
    assert 4.5 < sum(waits) / len(waits) < 5.5


def test_a_connection_that_lived_longer_than_could_be_waited_for_it_resets_the_backoff():
    backoff = Backoff(0.5, 30.0, uniform=lambda low, high: high)
    assert [backoff.next_s() for _ in range(3)] == [0.5, 1.0, 2.0]
    backoff.lived(2.0)
    assert backoff.next_s() == 4.0
    backoff.lived(4.1)
    assert backoff.next_s() == 0.5


def test_a_connection_that_delivered_nothing_does_not_reset_the_backoff():
    backoff = Backoff(0.5, 30.0, uniform=lambda low, high: high)
    backoff.next_s()
    backoff.lived(0.0)
    assert backoff.next_s() == 1.0


def test_turns_come_in_the_order_of_asking_and_never_closer_than_the_interval():
    async def run():
        time = Time(short=0.3)
        pace = RateLimiter(1.0, clock_s=time.clock, sleep=time.sleep)
        turns = []

        async def take(name):
            await pace.turn()
            turns.append((name, time.now_s))

        await asyncio.gather(*(take(name) for name in range(5)))
        assert [name for name, _ in turns] == [0, 1, 2, 3, 4]
        times = [at_s for _, at_s in turns]
        assert all(later - earlier >= 1.0 - 1e-9 for earlier, later in pairwise(times))
        assert times[-1] - times[0] < 4.1

    asyncio.run(run())


def test_a_heavy_turn_makes_the_next_one_wait_as_many_intervals():
    async def run():
        time = Time()
        pace = RateLimiter(0.5, clock_s=time.clock, sleep=time.sleep)
        await pace.turn(25)
        assert time.now_s == 1000.0
        await pace.turn()
        assert time.now_s == pytest.approx(1012.5)

    asyncio.run(run())


def test_unused_time_is_not_saved_up_for_a_burst():
    async def run():
        time = Time()
        pace = RateLimiter(1.0, clock_s=time.clock, sleep=time.sleep)
        await pace.turn()
        time.now_s += 100.0
        await pace.turn()
        before_s = time.now_s
        await pace.turn()
        assert time.now_s - before_s == pytest.approx(1.0)

    asyncio.run(run())


def test_whoever_is_cancelled_while_waiting_uses_up_no_turn():
    async def run():
        time = Time()
        pace = RateLimiter(
            1.0, clock_s=time.clock, sleep=lambda seconds: blocked.wait() if not free else time.sleep(seconds)
        )
        blocked, free = asyncio.Event(), False
        await pace.turn()
        waiting = [asyncio.create_task(pace.turn()) for _ in range(3)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        free = True
        await pace.turn()
        assert time.now_s == pytest.approx(1001.0)

    asyncio.run(run())


def test_a_pause_holds_back_even_who_waits_already():
    async def run():
        time = Time()
        pace = RateLimiter(1.0, clock_s=time.clock, sleep=time.sleep)
        await pace.turn()
        waiting = asyncio.create_task(pace.turn())
        await asyncio.sleep(0)
        pace.pause(60.0)
        pace.pause(5.0)
        await waiting
        assert time.now_s == pytest.approx(1060.0)

    asyncio.run(run())


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
        (aiohttp.ClientResponseError(None, (), status=418, headers={"Retry-After": "9"}), Reason.LIMITED, 9.0),
        (aiohttp.ClientResponseError(None, (), status=400), Reason.REJECTED, None),
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
    verdict = classify_error(error)
    assert (verdict.reason, verdict.retry_after_s) == (reason, retry_after_s)
    assert verdict.detail


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
