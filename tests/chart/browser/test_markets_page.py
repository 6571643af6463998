"""The page of the markets in a real browser: thousands of rows, any text, outages; the server makes its data up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from typing import Any, TypeAlias

import pytest
from chromium import PHONE, Chromium, Watched, needs_chromium
from fake_chart import FakeChart, feed

pytestmark = [pytest.mark.outside, needs_chromium]

UNKNOWN = "\N{EN DASH}"
Run: TypeAlias = Callable[..., None]
ROWS = "[...document.querySelectorAll('#rows tr')]"
SYMBOLS_IN_SIGHT = f"{ROWS}.map((row) => row.querySelector('th').title)"


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[FakeChart]:
    """A server of 30 markets that stand still, or of as many as the test's parameter says."""
    server = FakeChart(markets=getattr(request, "param", 30), moves=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def run(browser: Chromium, server: FakeChart) -> Run:
    """Open the page, wait for its rows and do a test."""

    def run(test: Callable[[Watched], Awaitable[None]], path: str = "", **options: Any) -> None:
        async def main() -> None:
            async with browser.page(server.url + path, **options) as watched:
                await watched.until(f"{ROWS}.length > 0", "rows")
                await test(watched)

        browser.run(main())

    return run


async def settled(watched: Watched) -> None:
    """Wait until what was done is drawn."""
    await watched.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


async def symbols(watched: Watched) -> list[str]:
    await settled(watched)
    found: list[str] = await watched.page.evaluate(SYMBOLS_IN_SIGHT)
    return found


@pytest.mark.parametrize("server", [10_000], indirect=True)
def test_of_thousands_of_rows_only_those_in_sight_are_in_the_document(server: FakeChart, run: Run) -> None:
    async def test(watched: Watched) -> None:
        page = watched.page
        everything = sorted(server.markets)
        assert await page.locator("#count").inner_text() == "10,000 markets"
        assert await page.evaluate("document.querySelectorAll('#rows tr').length") < 100
        assert await page.locator("#markets").get_attribute("aria-rowcount") == "10001"
        assert (await symbols(watched))[:20] == everything[:20]

        await page.evaluate("scroller.scrollTop = scroller.scrollHeight / 2")
        shown = await symbols(watched)
        place = everything.index(shown[0])
        assert shown == everything[place : place + len(shown)]
        assert 4_900 < place < 5_100
        first = page.locator("#rows tr").first
        assert await first.get_attribute("aria-rowindex") == str(place + 2)

        await page.evaluate("scroller.scrollTop = scroller.scrollHeight")
        assert (await symbols(watched))[-1] == everything[-1]
        last = await page.locator("#rows tr").last.bounding_box()
        assert last is not None
        assert abs(last["y"] + last["height"] - 800) <= 1, "the last row ends at the end of the window"

    run(test)


def test_a_row_says_exactly_what_the_server_said_and_moves_with_it(server: FakeChart, run: Run) -> None:
    async def test(watched: Watched) -> None:
        symbol = "binance:BTCUSDT"
        row = server.markets[symbol].row() | {
            "last": "1234567.890123456789",
            "change": 0.012345,
            "volume": "1234567.5",
            "quote_volume": "0.00001234",
            "state": "halted",
            "feed": feed("repairing") | {"reason": "<b onclick=alert(1)>&amp; 12 trades"},
            "spark": ["1", "3", "2"],
        }
        server.send({"t": "markets", "rows": [row], "all": False})
        first = watched.page.locator("#rows tr", has=watched.page.locator("th[title='binance:BTCUSDT']"))
        await watched.until(f"{ROWS}.some((row) => row.textContent.includes('1,234,567.890123456789'))", "the price")
        assert await first.locator("th").inner_text() == "BTCUSDTBinanceHalted"
        texts = [text.strip() for text in await first.locator("td").all_inner_texts()]
        assert texts[:2] == ["1,234,567.890123456789", "+1.23%"]
        assert texts[3:5] == ["1.235M", "0.00001234"]
        assert "Repairing" in texts[5]
        assert await first.locator("td").nth(3).get_attribute("title") == "1,234,567.5"
        assert (
            await first.locator("td").nth(5).get_attribute("title") == "Repairing: <b onclick=alert(1)>&amp; 12 trades"
        )
        points = await first.locator("polyline").get_attribute("points")
        assert points is not None
        assert len(points.split()) == 4, "three closes and the last price"

        del row["spark"]  # as it was
        server.send({"t": "markets", "rows": [row | {"last": "2", "change": None, "volume": None}], "all": False})
        await watched.until("document.querySelector('.moved-down') !== null", "a price that fell")
        texts = [text.strip() for text in await first.locator("td").all_inner_texts()]
        assert texts[:2] == ["2", UNKNOWN]
        assert texts[3] == UNKNOWN
        points = await first.locator("polyline").get_attribute("points")
        assert points is not None
        assert len(points.split()) == 4

    run(test)


def test_columns_sort_by_exact_values_both_ways_and_unknown_ones_come_last(server: FakeChart, run: Run) -> None:
    rows = [market.row() for market in server.markets.values()]
    rows[3]["volume"] = rows[5]["volume"] = None
    known = [row for row in rows if row["volume"] is not None]
    by_volume = sorted(known, key=lambda row: (Decimal(row["volume"]), row["symbol"]))
    nothing = sorted(row["symbol"] for row in rows if row["volume"] is None)

    async def test(watched: Watched) -> None:
        server.send({"t": "markets", "rows": rows, "all": True})
        head = watched.page.locator("#markets thead th", has_text="24 h volume")
        await head.locator("button").click()
        assert await head.get_attribute("aria-sort") == "descending"
        assert await symbols(watched) == [row["symbol"] for row in reversed(by_volume)] + nothing
        await head.locator("button").press("Enter")
        assert await head.get_attribute("aria-sort") == "ascending"
        assert await symbols(watched) == [row["symbol"] for row in by_volume] + nothing
        assert await watched.page.locator("[aria-sort]").count() == 1
        assert watched.page.url.endswith("?sort=volume")

        await watched.page.reload()
        await watched.until(f"{ROWS}.length > 0", "rows after a reload")
        assert await head.get_attribute("aria-sort") == "ascending"

    run(test)


def test_search_finds_words_of_venue_and_market_and_stays_in_the_address(server: FakeChart, run: Run) -> None:
    async def test(watched: Watched) -> None:
        page = watched.page
        await page.keyboard.press("/")
        await page.keyboard.type("jpy BITF")
        expected = sorted(symbol for symbol in server.markets if symbol.startswith("bitflyer") and "JPY" in symbol)
        assert await symbols(watched) == expected
        assert await page.locator("#count").inner_text() == f"{len(expected)} of 30"
        assert "q=jpy+BITF" in page.url
        await page.keyboard.type(" nothing like it")
        assert await symbols(watched) == []
        assert await page.locator("#nothing").inner_text() == "No market matches “jpy BITF nothing like it”"
        await page.keyboard.press("Escape")
        assert len(await symbols(watched)) == 30
        assert "q=" not in page.url

    run(test)


@pytest.mark.parametrize("server", [500], indirect=True)
def test_the_keyboard_walks_through_all_rows_and_opens_a_chart(server: FakeChart, run: Run) -> None:
    everything = sorted(server.markets)

    async def test(watched: Watched) -> None:
        async def focused() -> str:
            await settled(watched)
            found: str = await watched.page.evaluate("document.activeElement.closest('tr')?.querySelector('th').title")
            return found

        keys = watched.page.keyboard
        await keys.press("ArrowDown")
        assert await focused() == everything[0]
        await keys.press("ArrowDown")
        await keys.press("ArrowDown")
        await keys.press("ArrowUp")
        assert await focused() == everything[1]
        await keys.press("End")
        assert await focused() == everything[-1]
        await keys.press("PageUp")
        assert 470 < everything.index(await focused()) < 490
        await keys.press("Home")
        assert await focused() == everything[0]
        assert await watched.page.locator("#rows a[tabindex='0']").count() == 1
        for _ in range(60):
            await keys.press("ArrowDown")
        assert await focused() == everything[60]
        box = await watched.page.evaluate("document.activeElement.closest('tr').getBoundingClientRect().toJSON()")
        assert box["top"] > 48
        assert box["bottom"] <= 800, "what has the focus is in sight"
        await watched.page.evaluate("scroller.scrollTop = 0")  # by the wheel: the row goes out of sight
        await settled(watched)
        await keys.press("ArrowDown")
        assert await focused() == everything[61], "the keys go on from where they were"
        href = await watched.page.evaluate("document.activeElement.href")
        assert href == f"{server.url}chart?symbol={everything[61].replace(':', '%3A')}"

        await keys.press("?")
        assert await watched.page.locator("#keys").is_visible()
        await keys.press("ArrowDown")  # is the dialog's now
        await keys.press("Escape")
        assert not await watched.page.locator("#keys").is_visible()
        assert await focused() == everything[61]

    run(test)


def test_rows_keep_their_places_under_the_pointer(server: FakeChart, run: Run) -> None:
    async def test(watched: Watched) -> None:
        page = watched.page
        before = await symbols(watched)
        first = before[0]
        await page.locator("#rows tr").nth(2).hover()
        server.send({"t": "markets", "rows": [server.markets[first].row() | {"last": "9" * 12}], "all": False})
        await watched.until(f"{ROWS}[0].textContent.includes('999,999,999,999')", "the new price")
        assert await symbols(watched) == before
        assert await page.locator("#held").is_visible()
        await page.mouse.move(640, 10)
        await watched.until(f"{SYMBOLS_IN_SIGHT}.at(-1) === {first!r}", "rows in order again")
        assert not await page.locator("#held").is_visible()

    run(test, "?sort=last")


def test_language_and_theme_are_switched_and_remembered(server: FakeChart, run: Run) -> None:
    async def test(watched: Watched) -> None:
        page = watched.page
        assert await page.evaluate("document.documentElement.lang") == "ja"
        assert await page.locator("h1").inner_text() == "マーケット"
        assert await page.title() == "マーケット · Ashi"
        assert "銘柄" in await page.locator("#count").inner_text()
        await watched.axe()
        await page.keyboard.press("l")
        assert await page.locator("h1").inner_text() == "Markets"
        assert await page.evaluate("document.documentElement.lang") == "en"
        theme = "document.documentElement.dataset.theme"
        before = await page.evaluate(theme)
        await page.keyboard.press("t")
        after = await page.evaluate(theme)
        assert {before, after} == {"dark", "light"}
        await page.reload()
        await watched.until(f"{ROWS}.length > 0", "rows after a reload")
        assert await page.evaluate(theme) == after
        assert await page.locator("h1").inner_text() == "Markets"

    run(test, locale="ja-JP")


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("options", [{}, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_grave(run: Run, theme: str, options: dict[str, Any]) -> None:
    async def test(watched: Watched) -> None:
        assert await watched.page.evaluate("document.documentElement.dataset.theme") == theme
        await watched.axe()
        await watched.page.locator("#rows tr a").first.focus()
        await watched.axe()
        if not options:
            await watched.page.keyboard.press("?")
            await watched.axe()

    run(test, color_scheme=theme, **options)


def test_on_a_phone_nothing_is_wider_than_the_screen_and_rows_can_be_touched(server: FakeChart, run: Run) -> None:
    async def test(watched: Watched) -> None:
        page = watched.page
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        assert await page.evaluate("scroller.scrollWidth <= scroller.clientWidth")
        small = await page.evaluate(
            "[...document.querySelectorAll('button, select, input, #rows a')]"
            ".filter((each) => each.offsetParent !== null)"
            ".map((each) => (each.closest('#rows tr') ?? each).getBoundingClientRect())"
            ".filter((box) => box.height < 40).length"
        )
        assert small == 0, "what is touched is at least 40 pixels high"
        await page.locator("#sort").select_option("-change")
        changes = {symbol: market.row()["change"] for symbol, market in server.markets.items()}
        assert (await symbols(watched))[0] == max(changes, key=lambda symbol: changes[symbol])
        first = page.locator("#rows tr").first
        assert "%" in await first.inner_text()

    run(test, **PHONE)


def test_a_server_that_goes_away_is_told_and_what_it_says_anew_replaces_everything(browser: Chromium) -> None:
    server = FakeChart(markets=30, moves=False)
    server.start()
    again = FakeChart(markets=12, port=server.port, moves=False)

    async def main() -> None:
        async with browser.page(server.url) as watched:
            page = watched.page
            await watched.until(f"{ROWS}.length === 30", "rows")
            assert await page.locator("#link").inner_text() == "Connected"
            server.send({"t": "state", "kafka": "lagging", "lag_s": 12.3, "now": feed()["updated_at"]})
            await watched.until("link.textContent === '12 s behind Kafka'", "that the server is behind")
            server.send({"t": "state", "kafka": "down", "lag_s": None, "now": feed()["updated_at"]})
            await watched.until("link.textContent === 'Kafka not reachable'", "that Kafka is away")
            assert await page.evaluate("scroller.classList.contains('is-old')")
            watched.server_is_down = True
            await asyncio.to_thread(server.stop)
            await watched.until("link.textContent === 'Connection lost'", "that the connection is lost")
            assert await page.evaluate("scroller.classList.contains('is-old')")
            assert len(await symbols(watched)) == 30, "what was there stays readable"
            await asyncio.to_thread(again.start)
            await watched.until(f"{ROWS}.length === 12", "the rows of the new server")
            await watched.until("link.textContent === 'Connected'", "that it is connected")
            watched.server_is_down = False
            assert not await page.evaluate("scroller.classList.contains('is-old')")

    try:
        browser.run(main())
    finally:
        again.stop()
