"""From the page of the markets to a chart in a real browser, of a deployment behind a path and a token."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from chart_candles import wandering_candle
from chart_deployment import MINUTE_US, SECOND_US, a_deployment, now_us
from chromium import Chromium, needs_chromium

from ashi.contracts.decimals import format_decimal
from ashi.contracts.feed import FeedStatus
from ashi.contracts.instrument import Instrument

if TYPE_CHECKING:
    from pathlib import Path

    from ashi.runtime.settings import Settings
    from conftest import StartStage

pytestmark = [pytest.mark.outside, needs_chromium]

BTC, ETH, OLD = "bitflyer:BTC_JPY", "binance:ETHUSDT", "gmo:OLD_JPY"
HOUR_US = 60 * MINUTE_US
TOKEN = "a-token-of-the-tests"
BARS = "(window.ashi?.bars() ?? [])"
ROWS = """Object.fromEntries([...document.querySelectorAll("#rows tr")].map((row) => [
  row.querySelector("th").title,
  [...row.querySelectorAll("th, td")].map((cell) => [cell.textContent, cell.title]),
]))"""


def test_markets_are_what_their_candles_add_up_to_and_lead_to_their_charts(
    browser: Chromium, kafka_settings: Settings, start_stage: StartStage, tmp_path: Path
) -> None:
    now = now_us()
    hour = now // HOUR_US * HOUR_US
    past = [wandering_candle(BTC, "1h", hour - back * HOUR_US) for back in range(30, 0, -1)]
    live = wandering_candle(BTC, "1h", hour, version=2**40)
    quiet = [wandering_candle(OLD, "1h", hour - back * HOUR_US) for back in range(100, 90, -1)]
    status = FeedStatus(BTC, "down", now - MINUTE_US, "maintenance", None, now - SECOND_US, now, now - HOUR_US)
    halted = Instrument(OLD, "OLD", "JPY", Decimal(1), None, "halted", now)

    async def main() -> None:
        async with a_deployment(kafka_settings, start_stage, tmp_path, "1h") as deployment:
            await deployment.store(past + quiet)
            await deployment.send(status, halted)
            deployment.start_chart(ASHI_CHART_TOKEN=TOKEN, ASHI_CHART_BASE_PATH="/ashi")
            await deployment.send_live(live)
            async with browser.page(f"{deployment.url}ashi/") as watched:
                await watched.until("document.body.innerText.includes('a token is needed')", "that a token is needed")
                await watched.axe()
            async with browser.page(f"{deployment.url}ashi#token={TOKEN}") as watched:
                page = watched.page
                volume = sum((candle.volume for candle in [*past[-23:], live]), Decimal(0))
                last = format_decimal(live.close)  # which may come after what is stored
                told = await watched.until(
                    f"(() => {{ const rows = {ROWS}; const row = rows['{BTC}']; return row?.[4][1] && rows['{OLD}'] && "
                    f"row[1][0].replaceAll(',', '') === '{last}' && rows; }})()",
                    f"rows with volumes and the price {last}",
                )
                row = [text for text, _ in told[BTC]]
                exact = [title for _, title in told[BTC]]
                change = live.close / past[-24].close - 1
                assert row[2].replace("\N{MINUS SIGN}", "-") == f"{float(change):+.2%}"
                assert exact[4].replace(",", "") == format_decimal(volume)
                assert exact[6] == "Feed down: maintenance"
                assert "Halted" in told[OLD][0][0]
                assert told[OLD][1][0].replace(",", "") == format_decimal(quiet[-1].close)
                assert page.url == f"{deployment.url}ashi/", "the token does not stay in the address"

                moved = msgspec.structs.replace(live, close=live.high, version=live.version + 1)
                await deployment.send_live(moved)
                price = format_decimal(moved.close)
                await watched.until(
                    f"({ROWS})['{BTC}'][1][0].replaceAll(',', '') === '{price}'", "the price that moved"
                )

                await page.locator("#rows tr", has_text="BTC_JPY").click()
                await watched.until(f"{BARS}.length === 31", "the bars of the chart")
                assert page.url.startswith(f"{deployment.url}ashi/chart?symbol=")
                assert TOKEN not in page.url
                bar: list[Any] = (await page.evaluate(BARS))[-1]
                assert bar[4] == price
                await page.keyboard.press("m")
                await watched.until(f"({ROWS})['{BTC}']", "the markets again")

    browser.run(main())
