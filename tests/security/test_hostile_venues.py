"""What a venue that wishes us ill can do, beyond what its certification shows."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import TYPE_CHECKING

import pytest
import trustme
from aiohttp import web
from websockets.asyncio.client import connect

from ashi.contracts.errors import ContractError
from ashi.contracts.symbol import make_symbol
from ashi_ingest.errors import Reason, classify_error
from ashi_ingest.rest.client import RestClient, RestError
from ashi_ingest.venues.binance.history import _is_refused as is_refused
from ashi_ingest.venues.bitflyer.history import _is_too_old as is_too_old
from ashi_ingest.venues.registry import VENUES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

NAMES = [
    "", " ", "A B", "A\n", "A\r\nX: y", "A\0", "A\t", "A'; DROP TABLE candles; --", 'A"', "A`", "A$(x)", "<img src=x>",
    "A&B", "../../etc/passwd", "..", "/etc/passwd", "-rf", ".hidden", "A%2e", "A?x", "A#x", "A\\B",
    "A;B", "A|B", "A\u202eB",
    "A\u200b", "\ufeffA", "\u00a0A", "A\u2028", "A" * 65, "\u5e01" * 22,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_could_mean_something_else_is_no_symbol(name: str) -> None:
    with pytest.raises(ContractError) as told:
        make_symbol("binance", name)
    assert str(told.value).isprintable() or "\n" not in str(told.value), "the error is one line of a log"
    frame = b'{"e":"trade","s":%b,"t":1,"p":"1","q":"1","T":1800000000000,"m":true}' % ascii_json(name)
    parsed = VENUES["binance"].parser().parse(frame, 1_800_000_000_000_000)
    assert not parsed.trades
    assert [rejected.symbol for rejected in parsed.rejected] == [None]


def ascii_json(text: str) -> bytes:
    return json.dumps(text).encode()


@pytest.mark.parametrize(("ahead_s", "accepted"), [(60, 1), (61, 0), (86_400, 0)])
def test_a_trade_of_the_future_is_no_trade(ahead_s: int, accepted: int) -> None:
    now_us = 1_800_000_000_000_000
    frame = b'{"e":"trade","s":"A","t":1,"p":"1","q":"1","T":%d,"m":true}' % (now_us // 1_000 + ahead_s * 1_000)
    parsed = VENUES["binance"].parser().parse(frame, now_us)
    assert len(parsed.trades) == accepted
    assert [rejected.ahead_us for rejected in parsed.rejected] == [ahead_s * 1_000_000] * (1 - accepted)


async def with_server(certificate: trustme.LeafCert, do: Callable[[int], Awaitable[None]]) -> None:
    """Run against a server of TLS that answers every request."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response([])

    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(serving)
    application = web.Application()
    application.router.add_get("/{any:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=serving).start()
    try:
        await do(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def test_a_venue_without_a_trusted_certificate_is_not_spoken_to() -> None:
    venue = VENUES["bitflyer"].live(has_key=False)

    async def ask(port: int) -> None:
        async with RestClient(venue, f"https://127.0.0.1:{port}", None) as rest:
            with pytest.raises(RestError, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify failed") as told:
                await rest.get(venue.markets_request())
        assert told.value.retry_after_s is not None, "it is tried again"
        with pytest.raises(ssl.SSLCertVerificationError) as refused:
            await connect(f"wss://127.0.0.1:{port}/", open_timeout=10)
        assert classify_error(refused.value).reason is Reason.UNREACHABLE

    asyncio.run(with_server(trustme.CA().issue_cert("127.0.0.1"), ask))


@pytest.mark.parametrize("body", [b"\xff", b'{"code":"\xff"}', b'{"status":"\xff"}', b'{"x":' + b"[" * 100_000])
def test_a_refusal_that_cannot_be_read_is_no_refusal(body: bytes) -> None:
    """What it was asked for is then read, and refused in words."""
    assert not is_refused(body)
    assert not is_too_old(body)
