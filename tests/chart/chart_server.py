"""A chart server within a test's loop, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from ashi.runtime.settings import Settings
from ashi_chart.web import ChartServer


@asynccontextmanager
async def serving(**environ: str) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    """The address of the first page, and a session that asks; the server is on a free port."""
    server = ChartServer(Settings.from_environment({"ASHI_CHART_PORT": "0", **environ}))
    address = await server.start()
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as client:
            yield address, client
    finally:
        await server.close()
