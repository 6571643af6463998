"""Pages that take nothing, or little: they cost no more than others, see no old news, and are given up in the end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from chart_server import PageOf
from yarl import URL

from ashi.contracts.errors import StorageError
from ashi.runtime.settings import Settings
from ashi_chart import wire
from ashi_chart.board import LARGE_MESSAGES, Board
from ashi_chart.budget import Budget
from ashi_chart.candles.rollup import offered
from ashi_chart.pages import conversation, sessions
from ashi_chart.pages.conversation import Conversation
from ashi_chart.pages.outbox import MOST_BARS_WAITING
from ashi_chart.pages.web import ChartServer
from ashi_chart.series.active import ActiveSeries, Key
from ashi_chart.series.store import ChartStore
from samples.candles import BTC, FIRST_US, MINUTE_US, a_candle

BOUND_S = 60
KEY = Key(BTC, "1m")


class Nobody:
    """Keeps a series in memory."""

    def on_bars(self, bars: object) -> None: ...

    def on_loaded(self) -> None: ...

    def on_trouble(self, sentence: str) -> None: ...


@asynccontextmanager
async def serving_a_series(count: int = 500) -> AsyncIterator[tuple[str, ChartServer, ActiveSeries]]:
    settings = Settings.from_environment({"ASHI_CHART_PORT": "0", "ASHI_STORAGE": "sqlite:////nowhere/candles.db"})
    board = Board(settings, ChartStore(settings.storage))
    board.take_live(a_candle())
    series = board.series.watch(KEY, offered(settings.timeframes)["1m"], Nobody())
    series.load([a_candle(window, 1) for window in range(count)], 0)
    server = ChartServer(settings, board)
    try:
        yield await server.start(), server, series
    finally:
        await server.close()


@asynccontextmanager
async def narrow_page(address: str) -> AsyncIterator[PageOf]:
    """A page whose machine takes only little that it has not read."""

    def narrow(info: Any) -> socket.socket:
        made = socket.socket(*info[:3])
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        return made

    connector = aiohttp.TCPConnector(socket_factory=narrow)
    async with (
        aiohttp.ClientSession(connector=connector, read_bufsize=1_024) as client,
        client.ws_connect(f"{address}ws", max_msg_size=0, timeout=aiohttp.ClientWSTimeout(ws_close=0.2)) as page,
    ):
        yield PageOf(page)


def transport_of(page: PageOf) -> asyncio.Transport:
    transport = page.socket._response.connection.transport  # type: ignore[union-attr]
    assert transport is not None
    return transport


async def until(what: str, condition: Any) -> None:
    deadline = asyncio.get_running_loop().time() + BOUND_S / 2
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not in time: {what}"
        await asyncio.sleep(0.01)


def run(main: Any) -> None:
    asyncio.run(asyncio.wait_for(main, BOUND_S))


def test_a_page_that_reads_nothing_for_a_while_costs_little_and_then_sees_what_is_newest() -> None:
    async def main() -> None:
        async with serving_a_series() as (address, server, series), narrow_page(address) as page:
            await page.ask(*KEY)
            await page.until_snapshot()
            transport_of(page).pause_reading()
            [session] = server.sessions
            most = 0
            for version in range(2, 20_000):
                series.take(a_candle(version % 500, version), is_closed=True)
                series.flush()
                if not version % 50:
                    await asyncio.sleep(0)
                    most = max(most, session.waiting_bytes)
            # One message that was under way, and nothing that was made after it.
            assert 0 < most < sessions.BUFFERED + 500 * conversation.BYTES_OF_BAR + 10_000
            assert session.conversation.outbox.conflated > 1_000  # what the kernel takes at first is sent
            sent = len(page.messages)
            transport_of(page).resume_reading()
            await page.until("the newest", lambda: page.newest()[7] == 19_999)
            newest = [19_500 + window if window >= 0 else 0 for window in range(500)]
            await page.until("all of them", lambda: [bar[7] for bar in page.in_order()] == newest)
            assert len(page.messages) - sent < 30

    run(main())


def test_a_page_that_has_too_much_waiting_gets_a_snapshot_instead() -> None:
    async def main() -> None:
        async with serving_a_series() as (address, server, series), narrow_page(address) as page:
            await page.ask(*KEY, 20_000)
            await page.until_snapshot()
            transport_of(page).pause_reading()
            [session] = server.sessions
            version = 1

            def is_held_up() -> bool:
                nonlocal version
                version += 1
                for window in range(500):
                    series.take(a_candle(window, version), is_closed=True)
                series.flush()
                return session.waiting_bytes > sessions.BUFFERED

            await until("it is held up", is_held_up)
            length = 500 + MOST_BARS_WAITING + 1
            for window in range(500, length):
                series.take(a_candle(window, 2), is_closed=True)
            series.flush()
            transport_of(page).resume_reading()
            await page.until("another snapshot", lambda: len(page.told("snapshot")) > 1)
            assert page.snapshot is not None
            assert len(page.snapshot["bars"]) == length
            assert page.newest()[0] == FIRST_US + (length - 1) * MINUTE_US

    run(main())


def test_a_page_that_takes_nothing_for_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SLOW_S", 0.5)
    monkeypatch.setattr(sessions, "LOOK_S", 0.1)

    async def main() -> None:
        async with serving_a_series() as (address, server, series), narrow_page(address) as page:
            await page.ask(*KEY)
            await page.until_snapshot()
            transport_of(page).pause_reading()
            version = 1

            def is_given_up() -> bool:
                nonlocal version
                version += 1
                for window in range(500):
                    series.take(a_candle(window, version), is_closed=True)
                series.flush()
                return not server.sessions

            await until("it is given up", is_given_up)
            assert len(series.watchers) == 1

    run(main())


def test_a_page_that_is_not_there_any_more_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half open: nothing comes from it, not even that it is gone."""
    monkeypatch.setattr(sessions, "HEARTBEAT_S", 0.4)

    async def main() -> None:
        async with (
            serving_a_series() as (address, server, _),
            aiohttp.ClientSession() as client,
            client.ws_connect(f"{address}ws", autoping=False) as page,
        ):
            assert (await page.receive_json())["t"] == "hello"
            assert len(server.sessions) == 1
            await until("it is given up", lambda: not server.sessions)

    run(main())


def test_large_messages_wait_for_each_other_in_turn() -> None:
    async def main() -> None:
        budget, order = Budget(10), []

        async def use(name: str, size: int, until: asyncio.Event) -> None:
            async with budget.hold(size):
                order.append(name)
                await until.wait()

        first, rest = asyncio.Event(), asyncio.Event()
        tasks = [asyncio.create_task(use("a", 7, first))]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(use(*each, rest)) for each in (("b", 5), ("c", 99), ("d", 3))]
        await until("those that have room have begun", lambda: order == ["a", "d"])
        tasks[2].cancel()  # who goes away while it waits holds nothing
        first.set()
        await until("the next has begun", lambda: order == ["a", "d", "b"])
        rest.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(60), budget.hold(10):
            pass

    run(main())


def test_a_page_is_told_that_it_is_connected_while_large_messages_of_others_are_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conversation, "STATE_INTERVAL_S", 0.05)
    monkeypatch.setattr(conversation, "LARGE", 1_000)

    async def main() -> None:
        async with serving_a_series() as (address, server, _), narrow_page(address) as page:
            async with server.board.large.hold(LARGE_MESSAGES):
                await page.ask(*KEY, 500)
                await page.until("it is told", lambda: len(page.told("state")) > 5)
                assert page.snapshot is None
            await page.until_snapshot()
            async with asyncio.timeout(60), server.board.large.hold(LARGE_MESSAGES):
                pass

    run(main())


def test_what_waits_of_a_series_is_forgotten_when_the_next_one_is_not_there() -> None:
    async def main() -> None:
        async with serving_a_series() as (_, server, series):
            page = Conversation(server.board, "server")
            page.ask(wire.AskSeries(*KEY, 10))
            [_ async for _ in page.messages()]
            page.on_bars([(FIRST_US, b"[]")])
            assert page.outbox.has_bars
            page.ask(wire.AskSeries("nothing:NOWHERE", "1m", 10))
            assert [kind async for kind, _ in page.messages() if kind != "state"] == ["error"]
            assert page not in series.watchers
            assert page.wait_s() > 1  # else it would be asked again and again what there is to be told
            page.end()

    run(main())


def test_the_server_stops_though_a_page_is_given_up_at_that_moment() -> None:
    async def main() -> None:
        async with serving_a_series() as (address, server, _), narrow_page(address):
            await until("it is connected", lambda: len(server.sessions) == 1)
            [session] = server.sessions

            async def given_up() -> None:
                raise asyncio.CancelledError

            session.close = given_up  # type: ignore[method-assign]
            await server.close()

    run(main())


def test_garbage_on_the_wire_ends_the_connection_and_nothing_else() -> None:
    async def main() -> None:
        async with serving_a_series() as (address, server, _):
            url = URL(address)
            for garbage in (
                b"\xff" * 100,
                b"\x81\xff" + b"\x00" * 2_000,
                b"\x81\x05hello",
                b"\x89\xfe\x00\xff" + b"x" * 300,
            ):
                reader, writer = await asyncio.open_connection(url.host, url.port)
                writer.write(
                    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
                )
                await reader.readuntil(b"\r\n\r\n")
                await until("it is connected", lambda: len(server.sessions) == 1)
                writer.write(garbage)
                writer.close()
                await until("it is gone", lambda: not server.sessions)
            async with aiohttp.ClientSession() as client, client.ws_connect(f"{address}ws") as page:
                assert (await page.receive_json())["t"] == "hello"

    run(main())


def test_a_page_is_told_that_it_is_connected_while_the_store_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "STATE_INTERVAL_S", 0.05)

    async def main() -> None:
        async with serving_a_series() as (address, server, series), narrow_page(address) as page:
            series.load([a_candle(window, 1) for window in range(500)], FIRST_US)
            answer = asyncio.Event()

            async def ask(_: object) -> Any:
                await answer.wait()
                raise StorageError("it is gone")

            monkeypatch.setattr(server.board.store, "ask", ask)
            await page.ask(*KEY, 501)
            await page.until("it is told", lambda: len(page.told("state")) > 5)
            assert page.snapshot is None
            answer.set()
            await page.until_snapshot()
            assert page.snapshot is not None
            assert (len(page.snapshot["bars"]), page.snapshot["more"]) == (500, True)

    run(main())
