from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from chart_server import serving
from yarl import URL

from ashi_chart import wire
from ashi_chart.pages.static_files import FOLDER, read_static_files

TOKEN = "correct-horse-battery-staple"
Asking = Callable[[str, aiohttp.ClientSession], Awaitable[None]]


def ask(asking: Asking, **environ: str) -> None:
    async def within() -> None:
        async with asyncio.timeout(20), serving(**environ) as (address, client):
            await asking(address, client)

    asyncio.run(within())


def test_a_file_is_served_with_its_type_and_the_headers_of_safety() -> None:
    async def asking(address: str, client: aiohttp.ClientSession) -> None:
        async with client.get(f"{address}static/favicon.svg") as answer:
            assert (answer.status, answer.content_type) == (200, "image/svg+xml")
            assert await answer.read() == (FOLDER / "favicon.svg").read_bytes()
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
            assert "unsafe" not in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cache-Control"] == "no-cache"
            etag = answer.headers["ETag"]
        async with client.get(f"{address}static/favicon.svg", headers={"If-None-Match": etag}) as again:
            assert (again.status, await again.read()) == (304, b"")
        async with client.get(f"{address}nothing") as missing:
            assert missing.status == 404
            assert missing.headers["X-Content-Type-Options"] == "nosniff"

    ask(asking)


@pytest.mark.parametrize(
    "path",
    [
        "static/../web.py", "static/%2e%2e/web.py", "static/..%2fweb.py", "static//etc/passwd",
        "static/%2fetc%2fpasswd", "static/..%5cweb.py", "static/favicon.svg%00", "static/./favicon.svg/..", "static/",
        "static",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_folder(path: str) -> None:
    async def asking(address: str, client: aiohttp.ClientSession) -> None:
        async with client.get(URL(address + path, encoded=True)) as answer:
            assert answer.status == 404

    ask(asking)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_is_written(method: str) -> None:
    async def asking(address: str, client: aiohttp.ClientSession) -> None:
        for path in ("", "chart", "static/favicon.svg", "ws"):
            async with client.request(method, address + path) as answer:
                assert answer.status == 405

    ask(asking)


def test_every_file_of_the_folder_that_may_be_served_is_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor/library.js").write_text("x" * 5_000)
    (tmp_path / "vendor/LICENSE").write_text("free")
    (tmp_path / "page.html").write_text("short")
    files = read_static_files(tmp_path)
    assert {name: file.content_type for name, file in files.items()} == {
        "page.html": "text/html; charset=utf-8",
        "vendor/library.js": "text/javascript; charset=utf-8",
    }
    library = files["vendor/library.js"]
    assert files["page.html"].compressed is None
    assert library.compressed is not None
    assert len(library.compressed) < len(library.content)
    assert re.fullmatch("[0-9a-f]{32}", library.etag)


def test_a_base_path_is_what_all_is_below() -> None:
    async def asking(address: str, client: aiohttp.ClientSession) -> None:
        assert address.endswith("/ashi/")
        async with client.get(f"{address}static/favicon.svg") as answer:
            assert answer.status == 200
        async with client.get(URL(address).with_path("/static/favicon.svg")) as outside:
            assert outside.status == 404
        async with client.get(address.rstrip("/"), allow_redirects=False) as bare:
            assert (bare.status, bare.headers["Location"]) == (302, "/ashi/")

    ask(asking, ASHI_CHART_BASE_PATH="/ashi")


@pytest.mark.parametrize(
    ("origins", "origin", "closed_with"),
    [
        ("", None, None),
        ("", "SAME", None),
        ("", "http://evil.example", 4403),
        ("", "null", 4403),
        ("", "http://[::1", 4403),
        ("", "file://SAME", 4403),
        ("https://charts.example.com", "https://charts.example.com", None),
        ("https://charts.example.com", "HTTPS://Charts.Example.com", None),
        ("https://charts.example.com", "http://charts.example.com", 4403),
        ("https://charts.example.com", "https://charts.example.com.evil.example", 4403),
    ],
)
def test_only_pages_of_ours_and_of_allowed_origins_may_connect(
    origins: str, origin: str | None, closed_with: int | None
) -> None:
    async def asking(address: str, client: aiohttp.ClientSession) -> None:
        own = str(URL(address).origin())
        shown = None if origin is None else origin.replace("file://SAME", "file" + own[4:]).replace("SAME", own)
        headers = {} if shown is None else {"Origin": shown}
        async with client.ws_connect(f"{address}ws", headers=headers) as socket:
            message = await socket.receive()
            if closed_with is None:
                assert message.json()["t"] == "hello"
            else:
                assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, closed_with)
        async with client.get(f"{address}static/favicon.svg", headers=headers) as answer:
            assert answer.status == (200 if closed_with is None else 403)

    ask(asking, ASHI_CHART_ORIGINS=origins)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200), ("127.0.0.1", 200), ("127.8.8.8:1", 200), ("[::1]:8080", 200),
        ("charts.example.com", 200), ("evil.example", 421), ("", 421), ("127.0.0.1.evil.example", 421), ("[", 421),
    ],
)  # fmt: skip
def test_a_name_that_somebody_led_here_is_not_answered_where_only_this_machine_is_served(
    host: str, status: int
) -> None:
    async def asking(address: str, client: aiohttp.ClientSession) -> None:
        async with client.get(f"{address}static/favicon.svg", headers={"Host": host}) as answer:
            assert answer.status == status

    ask(asking, ASHI_CHART_ORIGINS="https://charts.example.com")


def test_without_the_token_a_page_is_told_so_and_sees_nothing() -> None:
    async def asking(address: str, client: aiohttp.ClientSession) -> None:
        async with client.get(f"{address}static/favicon.svg") as answer:
            assert answer.status == 200
        for shown in ("", "?token=", f"?token={TOKEN[:-1]}", f"?token={TOKEN}x", "?token=%ff%00", f"?Token={TOKEN}"):
            async with client.ws_connect(URL(f"{address}ws{shown}", encoded=True)) as socket:
                message = await socket.receive()
                assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4401)
        async with client.ws_connect(f"{address}ws?token={TOKEN}") as socket:
            assert (await socket.receive_json())["t"] == "hello"
        for scheme in ("Bearer", "bearer"):
            async with client.ws_connect(f"{address}ws", headers={"Authorization": f"{scheme} {TOKEN}"}) as socket:
                assert (await socket.receive_json())["t"] == "hello"

    ask(asking, ASHI_CHART_TOKEN=TOKEN)


def test_more_pages_than_are_allowed_are_told_to_come_later() -> None:
    async def asking(address: str, client: aiohttp.ClientSession) -> None:
        async with client.ws_connect(f"{address}ws") as first:
            assert (await first.receive_json())["t"] == "hello"
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.ws_connect(f"{address}ws")
            assert refused.value.status == 503
        async with client.ws_connect(f"{address}ws") as second:
            assert (await second.receive_json())["t"] == "hello"

    ask(asking, ASHI_CHART_CLIENTS="1")


def test_a_page_is_told_how_things_are_when_it_asks() -> None:
    async def asking(address: str, client: aiohttp.ClientSession) -> None:
        async with client.ws_connect(f"{address}ws") as socket:
            hello = await socket.receive_json()
            assert hello["protocol"] == wire.PROTOCOL
            assert hello["timeframes"] == ["1m", "5m", "15m", "30m", "1h", "2h", "4h", "12h", "1d", "1w"]
            first = await socket.receive_json()
            await socket.send_json({"op": "ping", "later": "fields of later protocols are left alone"})
            second = await socket.receive_json()
            assert (first["t"], second["t"]) == ("state", "state")
            assert second["now"] >= first["now"] >= hello["now"]

    ask(asking)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "{}", '{"op":"sell"}', '{"op":"series"}', '{"op":5}', "\x00", "🙈", "[" * 2_000,
        '{"op":"series","symbol":"binance:BTCUSDT","timeframe":"1m","bars":0}',
        '{"op":"series","symbol":"binance:BTCUSDT","timeframe":"1m","bars":20001}',
        '{"op":"series","symbol":"binance:BTCUSDT","timeframe":"1m","bars":true}',
        '{"op":"series","symbol":"' + "x" * 101 + '","timeframe":"1m","bars":1}',
    ],
)  # fmt: skip
def test_what_is_no_message_is_answered_in_words_and_the_page_stays(text: str) -> None:
    async def asking(address: str, client: aiohttp.ClientSession) -> None:
        async with client.ws_connect(f"{address}ws") as socket:
            await socket.send_str(text)
            while (answer := await socket.receive_json())["t"] in {"hello", "state"}:
                pass
            assert (answer["t"], answer["about"]) == ("error", "message")
            assert answer["message"].startswith("not understood: ")
            await socket.send_json({"op": "ping"})
            while (await socket.receive_json())["t"] != "state":
                pass

    ask(asking)


@pytest.mark.parametrize("number", ["00000000000000000001" + "9" * 30, "0" * 3_000 + "1", "²", "-1", "1e3", ""])
def test_a_number_that_is_none_is_refused_in_words(number: str) -> None:
    async def asking(address: str, client: aiohttp.ClientSession) -> None:
        for name in ("before", "limit"):
            query = {"symbol": "a:B", "timeframe": "1m", "before": "5", "limit": "5"} | {name: number}
            async with client.get(f"{address}api/bars", params=query) as response:
                assert response.status == 400
                assert f"{name} is to be a whole number" in (await response.json())["error"]

    ask(asking)


def test_a_page_that_sends_too_much_that_is_no_message_or_too_large_a_one_is_cut_off() -> None:
    async def last_of(address: str, client: aiohttp.ClientSession, text: str, times: int) -> int | None:
        async with client.ws_connect(f"{address}ws") as socket:
            for _ in range(times):
                await socket.send_str(text)
            while (await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
            return socket.close_code

    async def asking(address: str, client: aiohttp.ClientSession) -> None:
        assert await last_of(address, client, "garbage", 50) == aiohttp.WSCloseCode.POLICY_VIOLATION
        assert await last_of(address, client, "x" * 5_000, 1) == aiohttp.WSCloseCode.MESSAGE_TOO_BIG

    ask(asking)
