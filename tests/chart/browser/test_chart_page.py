"""The chart in a real browser, of a deployment that runs: Kafka, workers, a SQLite store and the chart's process."""

from __future__ import annotations

import asyncio
import itertools
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from chart_candles import made_candles
from chart_deployment import (
    CLOSED,
    COMPLETE,
    CORRECTED,
    INCOMPLETE,
    MINUTE_US,
    SECOND_US,
    Deployment,
    Market,
    a_deployment,
    now_us,
)
from chromium import Chromium, Watched, needs_chromium
from pixels import Picture

from ashi.contracts.candle import Candle
from ashi.contracts.decimals import format_decimal
from ashi.contracts.errors import StorageError
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.timeframe import Timeframe

if TYPE_CHECKING:
    from pathlib import Path

    from ashi.runtime.settings import Settings
    from conftest import StartStage

pytestmark = [pytest.mark.outside, needs_chromium]

BTC, ETH = "bitflyer:BTC_JPY", "binance:ETHUSDT"
BARS = "window.ashi?.bars() ?? []"


def fields_of(candle: Candle) -> list[Any]:
    """A stored candle as a bar has it, without the flags."""
    prices = (candle.open, candle.high, candle.low, candle.close, candle.volume)
    sums = (candle.quote_volume, candle.taker_buy_volume)
    return [
        candle.open_time,
        *map(format_decimal, prices),
        candle.trade_count,
        candle.version,
        *map(format_decimal, sums),
    ]


def without_flags(bar: list[Any]) -> list[Any]:
    return [*bar[:8], *bar[9:]]


async def bars_of(watched: Watched) -> list[list[Any]]:
    found: list[list[Any]] = await watched.page.evaluate(BARS)
    return found


async def equals_the_store(watched: Watched, deployment: Deployment, symbol: str, timeframe: str, until: int) -> int:
    """Wait until the page has exactly the bars that the store has up to a time, field by field; how many they are."""
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        bars = [bar for bar in await bars_of(watched) if bar[0] < until]
        first = bars[0][0] if bars else until
        stored = [fields_of(candle) for candle in await deployment.stored(symbol, timeframe, start=first, end=until)]
        if bars and [without_flags(bar) for bar in bars] == stored:
            assert all(bar[8] & CLOSED for bar in bars)
            assert stored[-1][0] >= until - 2 * Timeframe.parse(timeframe).length_us, "the store has come that far"
            return len(bars)
        if asyncio.get_running_loop().time() > deadline:
            assert [without_flags(bar) for bar in bars] == stored
        await asyncio.sleep(0.2)


def test_of_trades_that_flow(
    browser: Chromium, kafka_settings: Settings, start_stage: StartStage, tmp_path: Path
) -> None:
    """Bars equal the store's, the newest moves, a late trade redraws its bar, and a killed server leaves no hole."""

    async def main() -> None:
        async with a_deployment(kafka_settings, start_stage, tmp_path) as deployment:
            deployment.start("aggregate", ASHI_CHECKPOINT_INTERVAL="200ms", ASHI_LIVE_INTERVAL="100ms")
            deployment.start("sink", "sqlite")
            deployment.start_chart()
            async with Market(deployment, BTC) as market:
                await candles_are_stored(deployment, BTC, "1s", 5)
                async with browser.page(deployment.chart_url(BTC, "1s")) as watched:
                    await watched.until(f"({BARS}).length >= 5", "bars")
                    await the_newest_moves(watched)
                    await equals_the_store(watched, deployment, BTC, "1s", now_us() - 3 * SECOND_US)
                    await a_late_trade_redraws_its_bar(watched, deployment, market)
                    await a_killed_server_leaves_no_hole(watched, deployment)

    browser.run(main())


async def candles_are_stored(deployment: Deployment, symbol: str, timeframe: str, count: int) -> None:
    deadline = asyncio.get_running_loop().time() + 60
    while True:
        try:
            stored = await deployment.stored(symbol, timeframe)
        except StorageError:  # the sink has not made it yet
            stored = []
        if len(stored) >= count:
            return
        deployment.check()
        assert asyncio.get_running_loop().time() < deadline, f"{len(stored)} of {count} candles within 60 s"
        await asyncio.sleep(0.2)


async def the_newest_moves(watched: Watched) -> None:
    """One bar that is not closed changes several times before it closes."""
    seen: dict[int, set[str]] = {}
    deadline = asyncio.get_running_loop().time() + 20
    while not any(len(each) >= 3 for each in seen.values()):
        last = (await bars_of(watched))[-1]
        if not last[8] & CLOSED:
            seen.setdefault(last[0], set()).add(last[4])
        assert asyncio.get_running_loop().time() < deadline, f"closes of bars in progress: {seen}"
        await asyncio.sleep(0.03)


async def a_late_trade_redraws_its_bar(watched: Watched, deployment: Deployment, market: Market) -> None:
    place = -6
    before = (await bars_of(watched))[place]
    high = Decimal(before[2]) + 3
    await deployment.send(market.trade(traded_at=before[0] + 500_000, price=high))
    bar = await watched.until(
        f"({BARS}).find((bar) => bar[0] === {before[0]} && bar[7] > {before[7]}) ?? null", "the corrected bar"
    )
    assert bar[2] == format_decimal(high)
    assert bar[6] == before[6] + 1
    assert bar[8] & CLOSED
    assert bar[8] & CORRECTED
    assert not before[8] & CORRECTED
    deadline = asyncio.get_running_loop().time() + 10
    while not await wick_is_drawn(watched, bar[0], before[2], bar[2]):  # the chart may move on before the picture
        assert asyncio.get_running_loop().time() < deadline, "the bar is not drawn anew, up to its new high"
    await equals_the_store(watched, deployment, market.symbol, "1s", now_us() - 3 * SECOND_US)


async def wick_is_drawn(watched: Watched, open_time: int, low: str, high: str) -> bool:
    """Whether a bar is drawn all the way between two prices."""
    x, top, bottom = await watched.page.evaluate(
        "([time, low, high]) => [ashi.pixelOf(time), ashi.pixelOfPrice(high), ashi.pixelOfPrice(low)]",
        [open_time, float(low), float(high)],
    )
    picture = await Picture.of(watched)
    column = picture.column(x)[round(top) + 2 : round(bottom) - 2]
    assert len(column) > 5, "there is something to be seen"
    ground = await watched.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
    return bool((np.abs(column - np.array(ground) / 255).max(axis=(1, 2)) > 0.15).all())


async def a_killed_server_leaves_no_hole(watched: Watched, deployment: Deployment) -> None:
    """Killed, away for some candles, and there again: the page goes on by itself, nothing missing and nothing old."""
    assert deployment.chart is not None
    held = len(await bars_of(watched))
    watched.server_is_down = True
    deployment.chart.kill()
    await watched.until("window.ashi.state().link === 'lost'", "that the page says so")
    await asyncio.sleep(3)  # candles close meanwhile
    assert len(await bars_of(watched)) >= held, "what was there stays"
    await asyncio.to_thread(deployment.start_chart)  # trades flow on
    await watched.until("window.ashi.state().link === 'open'", "that it is connected again")
    watched.server_is_down = False
    after = now_us()
    await watched.until(f"({BARS}).at(-1)[0] > {after}", "newer bars")
    assert await equals_the_store(watched, deployment, BTC, "1s", after - 2 * SECOND_US) >= held
    times = [bar[0] for bar in await bars_of(watched) if bar[0] < after - 2 * SECOND_US]
    assert times == list(range(times[0], times[-1] + 1, SECOND_US)), "one of each second"


def rolled_up(candles: list[Candle], length_us: int) -> list[list[Any]]:
    """What bars of a longer timeframe must hold, without flags: of windows of which all candles are given."""
    windows: dict[int, list[Candle]] = {}
    for candle in candles:
        windows.setdefault(candle.open_time // length_us * length_us, []).append(candle)
    return [
        [
            open_time,
            format_decimal(parts[0].open),
            format_decimal(max(part.high for part in parts)),
            format_decimal(min(part.low for part in parts)),
            format_decimal(parts[-1].close),
            format_decimal(sum((part.volume for part in parts), Decimal(0))),
            sum(part.trade_count for part in parts),
            max(part.version for part in parts),
            format_decimal(sum((part.quote_volume for part in parts), Decimal(0))),
            format_decimal(sum((part.taker_buy_volume for part in parts), Decimal(0))),
        ]
        for open_time, parts in sorted(windows.items())
    ]


def a_status(symbol: str, complete_until: int) -> FeedStatus:
    now = now_us()
    return FeedStatus(symbol, "connected", now - MINUTE_US, None, "7", now - SECOND_US, now, complete_until)


def test_gaps_are_drawn_as_what_they_are(
    browser: Chromium, kafka_settings: Settings, start_stage: StartStage, tmp_path: Path
) -> None:
    end = now_us() // MINUTE_US * MINUTE_US
    candles = made_candles(BTC, "1m", 90, end)

    def gap(minute: int, state: Literal["open", "lost", "repaired"], updated: int = 0) -> FeedGap:
        start = end - minute * MINUTE_US
        recovered = 12 if state == "repaired" else 0
        return FeedGap(BTC, start, start + 5 * MINUTE_US, state, recovered, "connection lost", end + updated)

    async def main() -> None:
        async with a_deployment(kafka_settings, start_stage, tmp_path, "1m,1h") as deployment:
            await deployment.store(candles)
            await deployment.send(gap(20, "lost"), gap(40, "open"), gap(60, "repaired"), a_status(BTC, end))
            deployment.start_chart()
            async with browser.page(deployment.chart_url(BTC, "1m")) as watched:
                await watched.until(f"({BARS}).length >= 90 && window.ashi.state().gaps.length === 3", "bars and gaps")
                flags = {
                    (end - bar[0]) // MINUTE_US: bar[8] & (COMPLETE | INCOMPLETE) for bar in await bars_of(watched)
                }
                incomplete = {minute for minute, flag in flags.items() if flag == INCOMPLETE}
                assert incomplete == {*range(16, 21), *range(36, 41)}
                assert all(flags[minute] == COMPLETE for minute in range(1, 90) if minute not in incomplete)

                lost, opened, repaired, nothing = [
                    await shade(watched, end - minute * MINUTE_US) for minute in (18, 38, 58, 28)
                ]
                for one, other in itertools.combinations((lost, opened, repaired, nothing), 2):
                    assert np.abs(one - other).max() > 0.02, "each looks different from the others"
                assert np.abs(nothing - await shade(watched, end - 10 * MINUTE_US)).max() < 0.01

                await deployment.send(gap(20, "repaired", updated=1))
                await watched.until(
                    "window.ashi.state().gaps.filter((gap) => gap.state === 'repaired').length === 2",
                    "the repaired gap",
                )
                assert np.abs(await shade(watched, end - 18 * MINUTE_US) - repaired).max() < 0.02
                minute = end - 18 * MINUTE_US
                await watched.until(
                    f"({BARS}).find((bar) => bar[0] === {minute})[8] & {COMPLETE}", "that the bar is complete"
                )

    browser.run(main())


async def shade(watched: Watched, time: int) -> Any:
    """The colour behind the candles at a time: of a stripe along the top of the pane, above which no candle goes."""
    x = await watched.page.evaluate("(time) => window.ashi.pixelOf(time)", time)
    box = await watched.page.locator("#chart").bounding_box()
    assert box is not None
    return (await Picture.of(watched)).color(x - 9, box["y"] + 6, width=18, height=18)


def test_scrolling_back_ten_thousand_bars_and_switching(
    browser: Chromium, kafka_settings: Settings, start_stage: StartStage, tmp_path: Path
) -> None:
    end = now_us() // (60 * MINUTE_US) * 60 * MINUTE_US
    of_btc, of_eth = made_candles(BTC, "1m", 12_000, end), made_candles(ETH, "1m", 3_000, end)

    async def main() -> None:
        async with a_deployment(kafka_settings, start_stage, tmp_path, "1m") as deployment:
            await deployment.store(of_btc + of_eth)
            deployment.start_chart()
            async with browser.page(deployment.chart_url(BTC, "1m")) as watched:
                await watched.until(f"({BARS}).length > 0", "bars")
                await scroll_back(watched, 12_000)
                assert [without_flags(bar) for bar in await bars_of(watched)] == [fields_of(each) for each in of_btc]
                assert not any(await watched.page.evaluate(f"({BARS}).map((bar) => !(bar[8] & {CLOSED}))"))
                await switch_without_flicker(watched, of_eth)

    browser.run(main())


async def scroll_back(watched: Watched, count: int) -> None:
    """Go to the oldest bar that is there again and again, as a reader does, until there are so many bars."""
    held = 0
    while held < count:
        await watched.page.keyboard.press("Home")
        held = await watched.until(
            f"(({BARS}).length > {held} || ({BARS}).length >= {count}) && ({BARS}).length", "a page"
        )
    assert held == count


async def switch_without_flicker(watched: Watched, of_eth: list[Candle]) -> None:
    """Another symbol, then another timeframe: at no moment is there nothing to be seen."""
    page = watched.page
    await page.evaluate(
        """() => {
          window.fewest = Infinity;
          const look = () => {
            window.fewest = Math.min(window.fewest, window.ashi.bars().length);
            requestAnimationFrame(look);
          };
          look();
        }"""
    )
    await page.keyboard.press("/")
    await page.keyboard.type("ethusdt")
    await page.locator(f"[role=option][data-symbol='{ETH}']").wait_for()
    await page.keyboard.press("Enter")
    await watched.until(f"window.ashi.state().symbol === {ETH!r} && ({BARS}).at(-1)[7] > 0", "the other symbol")
    bars = await bars_of(watched)
    assert [without_flags(bar) for bar in bars] == [fields_of(candle) for candle in of_eth[-len(bars) :]]
    await page.get_by_role("button", name="5m", exact=True).click()
    await watched.until("window.ashi.state().timeframe === '5m'", "the other timeframe")
    bars = await bars_of(watched)
    assert [without_flags(bar) for bar in bars] == rolled_up(of_eth, 5 * MINUTE_US)[-len(bars) :]
    assert await page.evaluate("window.fewest") > 0
    assert "ETHUSDT" in page.url
    assert "timeframe=5m" in page.url
