"""What the chart page looks like and how it is used, in a real browser; the server makes its data up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from typing import Any, TypeAlias

import pytest
from chromium import PHONE, Chromium, Watched, needs_chromium
from fake_chart import FakeChart

pytestmark = [pytest.mark.outside, needs_chromium]

SYMBOL = "binance:BTCUSDT"
BARS = "(window.ashi?.bars() ?? [])"
Run: TypeAlias = Callable[..., None]


@pytest.fixture
def server() -> Iterator[FakeChart]:
    server = FakeChart(markets=40)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def run(browser: Chromium, server: FakeChart) -> Run:
    """Open a chart, wait for its bars and do a test."""

    def run(test: Callable[[Watched], Awaitable[None]], symbol: str = SYMBOL, **options: Any) -> None:
        async def main() -> None:
            async with browser.page(f"{server.url}chart?symbol={symbol}&timeframe=1m", **options) as watched:
                await watched.until(f"{BARS}.length > 100", "bars")
                await test(watched)

        browser.run(main())

    return run


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("options", [{}, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_grave(run: Run, theme: str, options: dict[str, Any]) -> None:
    async def test(watched: Watched) -> None:
        assert await watched.page.evaluate("document.documentElement.dataset.theme") == theme
        await watched.axe()
        for button, dialog in (("#symbol", "#search"), ("#settings-button", "#settings")):
            await watched.page.click(button)
            assert await watched.page.locator(dialog).is_visible()
            await watched.axe()
            await watched.page.keyboard.press("Escape")
        await watched.page.keyboard.press("?")
        assert await watched.page.locator("#help").is_visible()
        await watched.axe()

    run(test, color_scheme=theme, **options)


@pytest.mark.parametrize("locale", ["en-GB", "ja-JP"])
def test_on_a_phone_nothing_is_wider_than_the_screen_or_lies_upon_another(run: Run, locale: str) -> None:
    async def test(watched: Watched) -> None:
        page = watched.page
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        overlapping = await page.evaluate(
            """() => {
              const texts = [...document.querySelectorAll(".legend span, .legend b, .top *, .status *")]
                .filter((each) => each.children.length === 0 && each.textContent.trim() && each.offsetParent)
                .map((each) => [each.textContent, each.getBoundingClientRect()])
                .filter(([, box]) => box.width > 2 && box.right > 0 && box.left < innerWidth);
              const found = [];
              texts.forEach(([one, a], nth) => texts.slice(nth + 1).forEach(([other, b]) => {
                const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
                const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
                if (width > 2 && height > 2) found.push(`${one} / ${other}`);
              }));
              return found;
            }"""
        )
        assert overlapping == []
        chart = await page.locator("#chart").bounding_box()
        assert chart is not None
        assert chart["height"] > 300, "most of the screen is the chart's"

    run(test, locale=locale, **PHONE)


def test_japanese_everywhere(run: Run) -> None:
    async def test(watched: Watched) -> None:
        page = watched.page
        assert await page.evaluate("document.documentElement.lang") == "ja"
        await page.keyboard.press("?")
        await page.locator("#help").wait_for()
        text = await page.evaluate("document.body.innerText")
        english = [word for word in ("Volume", "Trades", "Connected", "Markets", "Keyboard", "Close") if word in text]
        assert english == []
        assert "出来高" in text

    run(test, locale="ja-JP")


def test_what_a_venue_says_is_text_and_never_markup(server: FakeChart, run: Run) -> None:
    async def test(watched: Watched) -> None:
        evil = "<img src=x onerror=alert(1)><b>bold</b>"
        now = server.markets[SYMBOL].feed["updated_at"]
        feed = server.markets[SYMBOL].feed | {"state": "down", "reason": evil, "since": now}
        server.send({"t": "feed", "symbol": SYMBOL, "feed": feed})
        server.send({"t": "error", "about": "markets", "message": evil})
        await watched.until("document.body.innerText.includes('onerror')", "the reason")
        assert await watched.page.locator("main b:text-is('bold')").count() == 0
        assert await watched.page.locator("img").count() == 0

    run(test)


def test_an_unknown_market_is_told_and_another_can_be_chosen(server: FakeChart, browser: Chromium) -> None:
    async def main() -> None:
        async with browser.page(f"{server.url}chart?symbol=binance:NOTHING&timeframe=1m") as watched:
            await watched.until("document.body.innerText.includes('there is no market binance:NOTHING')", "the error")
            await watched.axe()
            await watched.page.click("#message-search")
            await watched.page.keyboard.type("btcusdt")
            await watched.until("document.querySelector('#search [role=option]')", "markets to choose from")
            await watched.page.keyboard.press("Enter")
            await watched.until(f"{BARS}.length > 100", "bars")
            assert "BTCUSDT" in watched.page.url

    browser.run(main())


async def series_asked(server: FakeChart, since: int, until: Callable[[list[int]], bool]) -> list[int]:
    """For how many bars of a series the server was asked since its message number `since`, once `until` holds."""
    async with asyncio.timeout(60):
        while True:
            bars = [wish["bars"] for wish in server.asked[since:] if wish["op"] == "series"]
            if until(bars):
                return bars
            await asyncio.sleep(0.05)


def test_what_was_scrolled_back_to_is_asked_for_again_when_something_else_is_known_of_its_time(
    server: FakeChart, run: Run
) -> None:
    def gap(open_time: int) -> dict[str, Any]:
        gap = {"from": open_time, "to": open_time + 1, "state": "repaired", "final": False}
        return {"t": "gaps", "symbol": SYMBOL, "gaps": [gap | {"trades_recovered": 1, "reason": "x"}]}

    async def test(watched: Watched) -> None:
        await watched.page.keyboard.press("Home")
        await watched.until(f"{BARS}.length > 1500", "older bars")
        first, newest, count = await watched.page.evaluate(f"[{BARS}[0][0], {BARS}.at(-1)[0], {BARS}.length]")
        before = len(server.asked)
        server.send(gap(newest))
        server.send(gap(first))
        server.send(gap(first))
        [bars] = await series_asked(server, before, bool)
        assert bars >= count
        await watched.until(f"{BARS}.length >= {count}", "as many bars as before")

    run(test)


def test_a_line_that_is_too_narrow_for_many_bars_is_asked_for_fewer(server: FakeChart, run: Run) -> None:
    async def test(watched: Watched) -> None:
        await watched.page.keyboard.press("Home")
        await watched.until(f"{BARS}.length > 1900", "older bars")
        before = len(server.asked)
        server.most_bars = 600
        server.cut_off()
        bars = await series_asked(server, before, lambda bars: bool(bars) and bars[-1] <= 600)
        assert min(bars[:2]) > 1900, "once is no proof"
        assert all(fewer <= max(more // 2, 500) for more, fewer in pairwise(bars[1:]))

    run(test)
