"""A chart that wants a token, below a path of its own, in a real browser. It has no Kafka, which it says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from chromium import Chromium, needs_chromium

from ashi.runtime.settings import Settings
from ashi_chart.board import Board
from ashi_chart.pages.web import ChartServer
from ashi_chart.series.store import ChartStore

pytestmark = [pytest.mark.outside, needs_chromium]

TOKEN = "correct-horse-battery-staple"


@asynccontextmanager
async def serving() -> AsyncIterator[str]:
    """The address of the first page."""
    settings = Settings.from_environment(
        {
            "ASHI_CHART_PORT": "0",
            "ASHI_CHART_TOKEN": TOKEN,
            "ASHI_CHART_BASE_PATH": "/ashi",
            "ASHI_STORAGE": "sqlite:////nowhere/candles.db",
        }
    )
    server = ChartServer(settings, Board(settings, ChartStore(settings.storage)))
    address = await server.start()
    try:
        yield address
    finally:
        await server.close()


def test_the_token_in_the_address_lets_in_is_taken_out_of_it_and_kept_for_the_tab(browser: Chromium) -> None:
    async def main() -> None:
        async with serving() as address:
            page_of_series = f"{address}chart?symbol=binance:BTCUSDT&timeframe=1m"
            async with browser.page(f"{page_of_series}#token={TOKEN}") as watched:
                await watched.until("window.ashi?.state().link === 'open'", "a connection with the token")
                assert watched.page.url == page_of_series
                await watched.page.click("a.brand")
                await watched.until("document.querySelector('#link')?.dataset.level !== undefined", "the markets")
                assert watched.page.url == address
                await watched.page.goto(page_of_series)
                await watched.until("window.ashi?.state().link === 'open'", "a connection without being told again")

    browser.run(main())


@pytest.mark.parametrize("fragment", ["", "#token=wrong"])
def test_without_the_token_the_page_says_that_one_is_needed(browser: Chromium, fragment: str) -> None:
    async def main() -> None:
        async with (
            serving() as address,
            browser.page(f"{address}chart?symbol=binance:BTCUSDT&timeframe=1m{fragment}") as watched,
        ):
            await watched.until("window.ashi?.state().link === 'refused'", "a refusal")
            assert await watched.page.inner_text("#banner-text") == "Not allowed: a token is needed"
            assert await watched.page.inner_text("#feed") == "Feed unknown"
            await watched.page.evaluate(f"location.hash = 'token={TOKEN}'")
            await watched.until("window.ashi.state().link === 'open'", "a connection once the token is given")
            assert TOKEN not in watched.page.url

    browser.run(main())
