"""A chart server within a test's loop, and a page of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from ashi.runtime.service import Service
from ashi.runtime.settings import Settings
from ashi_chart.board import Board
from ashi_chart.pages.web import ChartServer
from ashi_chart.series.store import ChartStore
from ashi_chart.worker import serve_chart

BOUND_S = 60.0


@asynccontextmanager
async def serving(**environ: str) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    """The address of the first page, and a session that asks; the server is on a free port."""
    settings = Settings.from_environment(
        {"ASHI_CHART_PORT": "0", "ASHI_STORAGE": "sqlite:////nowhere/candles.db", **environ}
    )
    server = ChartServer(settings, Board(settings, ChartStore(settings.storage)))
    address = await server.start()
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as client:
            yield address, client
    finally:
        await server.close()


@asynccontextmanager
async def charting(settings: Settings, store: Path | str, port: int = 0) -> AsyncIterator[str]:
    """The whole of `ashi chart` but its process, on a Kafka: the address of the first page.

    `store`: the file of an SQLite store, or the URL of one.
    """
    settings = replace(settings, storage=store if isinstance(store, str) else f"sqlite:///{store}", chart_port=port)
    service, served = Service("chart", settings), asyncio.get_running_loop().create_future()
    running = asyncio.create_task(serve_chart(service, served.set_result))
    try:
        await asyncio.wait({running, served}, return_when=asyncio.FIRST_COMPLETED)
        yield await (served if served.done() else running)  # type: ignore[misc]
    finally:
        service.stopping.set()
        async with asyncio.timeout(BOUND_S):
            await running


class PageOf:
    """What a page does with what it is told of its series, and nothing else."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.bars: dict[int, list[Any]] = {}
        self.gaps: dict[int, dict[str, Any]] = {}
        self.snapshot: dict[str, Any] | None = None
        self.messages: list[dict[str, Any]] = []

    async def ask(self, symbol: str, timeframe: str, bars: int = 1_000) -> None:
        self.snapshot = None
        await self.socket.send_json({"op": "series", "symbol": symbol, "timeframe": timeframe, "bars": bars})

    async def until(self, what: str, condition: Callable[[], object]) -> None:
        """Take messages until this holds."""
        try:
            async with asyncio.timeout(BOUND_S):
                while not condition():
                    self._take(await self.socket.receive_json())
        except TimeoutError:
            raise AssertionError(f"not within {BOUND_S:g} s: {what}; last {self.messages[-3:]}") from None

    async def until_snapshot(self) -> None:
        await self.until("a snapshot", lambda: self.snapshot)

    def _take(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        match message["t"]:
            case "snapshot":
                self.snapshot = message
                self.bars = {bar[0]: bar for bar in message["bars"]}
                self.gaps = {gap["from"]: gap for gap in message["gaps"]}
                assert list(self.bars) == sorted(self.bars)
            case "bars":
                for bar in message["bars"]:
                    if not self.bars or bar[0] >= min(self.bars):
                        self.bars[bar[0]] = bar
            case "gaps":
                self.gaps |= {gap["from"]: gap for gap in message["gaps"]}

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["t"] == kind]

    def shows(self, bars: list[list[Any]], *, more: bool) -> bool:
        """Whether its last snapshot was of these bars."""
        return self.snapshot is not None and (self.snapshot["bars"], self.snapshot["more"]) == (bars, more)

    def in_order(self) -> list[list[Any]]:
        return [self.bars[open_time] for open_time in sorted(self.bars)]

    def newest(self) -> list[Any]:
        return self.bars[max(self.bars)]


@asynccontextmanager
async def page_of(address: str) -> AsyncIterator[PageOf]:
    """A page that is connected."""
    async with aiohttp.ClientSession() as client, client.ws_connect(f"{address}ws") as socket:
        yield PageOf(socket)
