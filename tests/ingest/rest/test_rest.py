"""Requests to a venue's REST interface, against a server on the loopback: pace, key, bounds, and errors."""

from __future__ import annotations

import asyncio
import gzip
import re
import time
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from aiohttp import web
from toy_venue import ToyVenue, as_venue, serving

from ashi.runtime.metrics import ingest as metrics
from ashi.runtime.settings import Secret
from ashi_ingest.rest import client as rest_module
from ashi_ingest.rest.client import RestClient, RestError
from ashi_ingest.venues.base import ApiKey, Request

EARLY_S = 0.02
"""How much closer than agreed two requests may reach the server."""
KEY = ApiKey("ASHI_BINANCE_API_KEY", "X-MBX-APIKEY")
TRADES = Request("/v1/trades", {"symbol": "BTC_JPY"})


@asynccontextmanager
async def asking(answer, *, key=None, **limits):
    """A `Rest` of a server that answers as `answer(request, number)` does, and the requests it has seen."""
    seen = []

    async def handle(request):
        seen.append((time.monotonic(), request))
        return await answer(request, len(seen))

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    async with serving(app) as url, RestClient(as_venue(ToyVenue(**limits)), url + "/", key) as rest:
        yield rest, seen


async def fine(request, number):
    return web.json_response({"number": number})


def answering(status, **more):
    async def answer(request, number):
        return web.Response(status=status, **more)

    return answer


def failure(answer, request=TRADES, **more):
    """The RestError that a request ends in."""

    async def run():
        async with asking(answer, **more) as (rest, _):
            with pytest.raises(RestError) as caught:
                await rest.get(request)
        return caught.value

    return asyncio.run(run())


def outcomes(outcome):
    return metrics.rest_requests.labels("toy", outcome)._value.get()


def test_an_answer_is_the_body_and_when_it_was_received():
    async def run():
        before = outcomes("ok")
        async with asking(fine) as (rest, seen):
            started_us = time.time_ns() // 1000
            answer = await rest.get(Request("/v1/trades", {"symbol": "A&B/C", "after": "17"}))
        assert answer.body == b'{"number": 1}'
        assert started_us <= answer.received_at <= time.time_ns() // 1000
        request = seen[0][1]
        assert request.path == "/v1/trades"
        assert dict(request.query) == {"symbol": "A&B/C", "after": "17"}
        assert request.headers["User-Agent"] == "ashi"
        assert outcomes("ok") - before == 1

    asyncio.run(run())


def test_a_compressed_answer_is_read():
    async def answer(request, number):
        return web.Response(body=gzip.compress(b"[1]"), headers={"Content-Encoding": "gzip"})

    async def run():
        async with asking(answer) as (rest, _):
            assert (await rest.get(TRADES)).body == b"[1]"

    asyncio.run(run())


def test_requests_keep_the_pace_by_their_weight():
    async def run():
        async with asking(fine, request_interval_s=0.1) as (rest, seen):
            ask, times_s = rest._ask, []

            async def note_and_ask(request, headers):  # when it leaves: the server is in this process and may be late
                times_s.append(time.monotonic())
                return await ask(request, headers)

            rest._ask = note_and_ask
            weights = [1, 3, 1, 1]
            await asyncio.gather(*(rest.get(Request("/", {}, weight)) for weight in weights))
        assert len(seen) == len(times_s) == 4
        gaps = [later_s - earlier_s for earlier_s, later_s in pairwise(times_s)]
        assert gaps[0] >= 0.1 - EARLY_S
        assert gaps[1] >= 0.3 - EARLY_S
        assert gaps[2] >= 0.1 - EARLY_S

    asyncio.run(run())


def test_the_key_goes_only_with_requests_that_need_it():
    async def run():
        async with asking(fine, key=Secret("k3y")) as (rest, seen):
            await rest.get(Request("/historicalTrades", {}, api_key=KEY))
            await rest.get(TRADES)
        assert [request.headers.get("X-MBX-APIKEY") for _, request in seen] == ["k3y", None]

    asyncio.run(run())


def test_without_a_key_nothing_is_asked_that_needs_one():
    async def run():
        async with asking(fine) as (rest, seen):
            with pytest.raises(RestError, match="ASHI_BINANCE_API_KEY") as caught:
                await rest.get(Request("/historicalTrades", {}, api_key=KEY))
        assert caught.value.retry_after_s is None
        assert seen == []

    asyncio.run(run())


def test_a_redirect_is_not_followed_so_the_key_stays_here():
    async def run():
        async def elsewhere(request, number):
            return web.Response(status=302, headers={"Location": "/stolen"})

        async with asking(elsewhere, key=Secret("k3y")) as (rest, seen):
            with pytest.raises(RestError) as caught:
                await rest.get(Request("/historicalTrades", {}, api_key=KEY))
        assert caught.value.retry_after_s == 0.0, "venues in maintenance redirect"
        assert len(seen) == 1
        assert "k3y" not in str(caught.value)

    asyncio.run(run())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 451])
def test_a_request_that_is_wrong_is_fatal_and_says_what_the_venue_said(status):
    before = outcomes("failed")
    error = failure(answering(status, text='{"code": -1121,\n "msg": "Invalid symbol."}'))
    assert error.retry_after_s is None
    assert f"HTTP {status}" in str(error)
    assert '{"code": -1121, "msg": "Invalid symbol."}' in str(error)
    assert "toy: GET http://127.0.0.1" in str(error)
    assert "/v1/trades" in str(error)
    assert outcomes("failed") - before == 1


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_a_venue_in_trouble_may_be_asked_again(status):
    assert failure(answering(status)).retry_after_s == 0.0


@pytest.mark.parametrize("status", [429, 418])
def test_after_too_many_requests_no_request_of_the_process_is_sent_until_it_is_allowed(status):
    async def run():
        async def limited_first(request, number):
            if number == 1:
                return web.Response(status=status, headers={"Retry-After": "1"})
            return await fine(request, number)

        before = outcomes("limited")
        async with asking(limited_first) as (rest, seen):
            with pytest.raises(RestError) as caught:
                await rest.get(TRADES)
            assert caught.value.retry_after_s == 1.0
            with pytest.raises(RestError, match="was not asked") as caught:
                await rest.get(Request("/v1/other", {}))
            retry_after_s = caught.value.retry_after_s
            assert retry_after_s is not None
            assert 0.0 < retry_after_s <= 1.0
            assert len(seen) == 1
            await asyncio.sleep(retry_after_s)
            await rest.get(TRADES)
        assert seen[1][0] - seen[0][0] >= 1.0 - EARLY_S
        assert outcomes("limited") - before == 1

    asyncio.run(run())


@pytest.mark.parametrize("status", [403, 418, 429])
def test_a_ban_whose_end_stands_in_the_body_only_is_kept_to(status):
    async def run():
        text = '{"code":-1003,"msg":"Way too much request weight used; IP banned until %d. Please use the websocket."}'
        until_ms = int((time.time() + 600) * 1000)
        answer = answering(status, text=text % until_ms)
        async with asking(answer, banned_until=re.compile("banned until ([0-9]{13})")) as (rest, seen):
            with pytest.raises(RestError) as caught:
                await rest.get(TRADES)
            assert 590 < (caught.value.retry_after_s or 0) <= 600
            with pytest.raises(RestError, match="was not asked"):
                await rest.get(TRADES)
            assert len(seen) == 1

    asyncio.run(run())


def test_a_ban_that_is_over_or_of_a_far_future_is_no_ban_for_ever():
    for until_ms, least_s, most_s in ((1_500_000_000_000, 10.0, 10.0), (9_999_999_999_999, 86_400.0, 86_400.0)):
        error = failure(
            answering(418, text=f"banned until {until_ms}"), banned_until=re.compile("banned until ([0-9]{13})")
        )
        assert least_s <= (error.retry_after_s or 0) <= most_s


def test_no_answer_in_time_may_be_asked_again(monkeypatch):
    monkeypatch.setattr(rest_module, "TIMEOUT_S", 0.1)

    async def never(request, number):
        await asyncio.sleep(30)

    error = failure(never)
    assert error.retry_after_s == 0.0
    assert "no answer in time" in str(error)


def test_an_answer_that_breaks_off_may_be_asked_again():
    async def half(request, number):
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"[1, 2")
        request.transport.abort()
        return response

    assert failure(half).retry_after_s == 0.0


def test_a_venue_that_is_not_there_may_be_asked_again():
    async def run():
        async with serving(web.Application()) as url:
            pass
        async with RestClient(as_venue(ToyVenue()), url, None) as rest:
            with pytest.raises(RestError) as caught:
                await rest.get(TRADES)
        assert caught.value.retry_after_s == 0.0

    asyncio.run(run())


@pytest.mark.parametrize("compressed", [False, True])
def test_an_answer_beyond_the_bound_is_not_read_to_its_end(monkeypatch, compressed):
    monkeypatch.setattr(rest_module, "MAX_ANSWER", 1_000_000)

    async def huge(request, number):
        body = b"0" * 50_000_000
        if compressed:
            return web.Response(body=gzip.compress(body, 1), headers={"Content-Encoding": "gzip"})
        return web.Response(body=body)

    error = failure(huge)
    assert error.retry_after_s is None
    assert "more than 1000000 bytes" in str(error)


def test_an_answer_up_to_the_bound_is_read(monkeypatch):
    monkeypatch.setattr(rest_module, "MAX_ANSWER", 1_000_000)

    async def large(request, number):
        return web.Response(body=b"0" * 1_000_000)

    async def run():
        async with asking(large) as (rest, _):
            assert len((await rest.get(TRADES)).body) == 1_000_000

    asyncio.run(run())
