"""What a page is shown is what the stores have, field by field, whichever it is, and whatever is away meanwhile."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from chart_kafka import topics_of
from chart_samples import a_bar, bars
from chart_server import PageOf, charting, page_of

import oracle
from ashi.client import kafka_settings as settings_of
from ashi.contracts import Candle, Trade
from ashi.contracts.decimals import format_decimal
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi_chart.candles.bars import CLOSED, COMPLETE, CORRECTED, FLAT, INCOMPLETE
from ashi_cli.onemachine.broker import Broker
from ashi_sinks.registry import STORES, make_sink, open_reader
from kafka_topics.fresh_topics import renew_topics
from samples.candles import BTC, ETH, FIRST_US, MINUTE_US, a_candle
from samples.hypothesis_strategies import drawn_trade

if TYPE_CHECKING:
    from ashi.runtime.settings import Settings
    from servers.postgres import PostgresServer

BOUND_S = 100
HOURS = 9
HOUR_US = 60 * MINUTE_US


def run(main: Any) -> None:
    asyncio.run(asyncio.wait_for(main, BOUND_S))


def new_schema(server: PostgresServer) -> str:
    url = server.new_schema()
    migrate = STORES["postgres"].migrate
    assert migrate is not None
    migrate(url)
    return url


async def store_in(
    url: str, candles: Sequence[Candle], gaps: Sequence[FeedGap] = (), statuses: Sequence[FeedStatus] = ()
) -> None:
    sink = make_sink(url)
    await sink.open()
    await sink.write(candles)
    await sink.write_gaps(gaps)
    await sink.write_statuses(statuses)
    await sink.close()


async def stored(url: str, symbol: str, timeframe: str) -> list[Candle]:
    async with open_reader(url) as reader:
        return [candle async for candle in reader.read(symbol, timeframe)]


async def older(address: str, timeframe: str, before: int, limit: int) -> tuple[int, dict[str, Any]]:
    query: dict[str, Any] = {"symbol": BTC, "timeframe": timeframe, "before": before, "limit": limit}
    async with aiohttp.ClientSession() as client, client.get(f"{address}api/bars", params=query) as answer:
        return answer.status, await answer.json()


async def until_kafka_is(page: PageOf, state: str) -> None:
    await page.until(f"Kafka is {state}", lambda: page.told("state")[-1:] and page.told("state")[-1]["kafka"] == state)


async def scrolled_back(page: PageOf, address: str, timeframe: str, at_first: int, limit: int) -> list[list[Any]]:
    """The bars of a page that asks for its newest and then scrolls back to the beginning."""
    await page.ask(BTC, timeframe, at_first)
    await page.until_snapshot()
    assert page.snapshot is not None
    got, more = page.in_order(), page.snapshot["more"]
    while more:
        status, answer = await older(address, timeframe, got[0][0], limit)
        assert (status, answer["symbol"], answer["timeframe"]) == (200, BTC, timeframe)
        assert answer["bars"]
        got, more = answer["bars"] + got, answer["more"]
    return got


def drawn_trades() -> list[Trade]:
    """Some hours of a market, often quiet for many minutes; amounts of up to 25 digits."""
    rng = random.Random(16)
    times = sorted(FIRST_US + rng.randrange(HOURS * HOUR_US) for _ in range(400))
    return [drawn_trade(rng, [BTC], str(number), time, number) for number, time in enumerate(times)]


def closed_candles(trades: list[Trade], timeframes: list[str]) -> list[Candle]:
    """With flat ones, as the aggregate stage makes them; its version is the number of the last trade."""
    made = oracle.closed(oracle.candles_of(trades, timeframes), trades, 0)
    candles = []
    for (symbol, timeframe, start), fields in sorted(made.items(), key=lambda item: item[0][2]):
        versions = [trade.sequence for trade in trades if trade.traded_at < fields["close_time"]]
        candles.append(Candle(symbol=symbol, timeframe=timeframe, open_time=start, version=max(versions), **fields))
    return candles


@pytest.mark.postgres
@pytest.mark.parametrize("kind", ["sqlite", "postgres", "lake"])
def test_bars_are_the_store_s_field_by_field_and_longer_ones_what_all_trades_give(
    kind: str, kafka_settings: Settings, postgres: PostgresServer, tmp_path: Path
) -> None:
    url = new_schema(postgres) if kind == "postgres" else f"{kind}:///{tmp_path}/store"
    trades = drawn_trades()
    until = FIRST_US + (HOURS - 1) * HOUR_US
    gap = FeedGap(BTC, FIRST_US + 90 * MINUTE_US, FIRST_US + 150 * MINUTE_US, "lost", 0, "silent", FIRST_US)
    status = FeedStatus(BTC, "connected", FIRST_US, None, "7", FIRST_US, FIRST_US + 1, until)

    def flags(candle: Candle) -> int:
        is_flat = FLAT if candle.trade_count == 0 else 0
        if candle.open_time < (gap.to_time or 0) and candle.close_time > gap.from_time:
            return CLOSED | INCOMPLETE | is_flat
        return CLOSED | is_flat | (COMPLETE if candle.close_time <= until else 0)

    async def main() -> None:
        await store_in(url, closed_candles(trades, ["1m", "1h"]), [gap], [status])
        async with topics_of(kafka_settings) as topics:
            await topics.send(status)  # the gap only the store has: topics keep for some time only
        async with charting(kafka_settings, url) as address, page_of(address) as page:
            for timeframe, at_first, limit in (("1m", 7, 100), ("1h", 3, 2)):
                expected = await stored(url, BTC, timeframe)
                assert len(expected) >= HOURS - 1
                got = await scrolled_back(page, address, timeframe, at_first, limit)
                assert got == [a_bar(candle, flags(candle)) for candle in expected]
            # Of the hours that have closed, 4h is what all their trades give; the third is in progress.
            closed = [trade for trade in trades if trade.traded_at < until]
            got = await scrolled_back(page, address, "4h", 1, 1)
            [first, second] = closed_candles([*closed, a_trade_at(until)], ["4h"])
            assert [bar[:8] for bar in got[:2]] == [a_bar(first, 0)[:8], a_bar(second, 0)[:8]]
            assert [bar[8] for bar in got[:2]] == [CLOSED | INCOMPLETE, CLOSED | COMPLETE]
            assert [bar[9:] for bar in got[:2]] == [a_bar(first, 0)[9:], a_bar(second, 0)[9:]]
            _, answer = await older(address, "1m", FIRST_US + 2 * HOUR_US, 50)
            assert [each["from"] for each in answer["gaps"]] == [gap.from_time]
            status_code, answer = await older(address, "1m", FIRST_US, 50)
            assert (status_code, answer["bars"], answer["more"]) == (200, [], False)

    run(main())


def a_trade_at(time: int) -> Trade:
    return drawn_trade(random.Random(1), [BTC], "last", time, 10_000)


@pytest.mark.postgres
def test_a_store_that_goes_away_and_comes_back_is_waited_for_while_bars_go_on(
    kafka_settings: Settings, postgres: PostgresServer
) -> None:
    url = new_schema(postgres)
    before = [a_candle(number, number + 1) for number in range(3_000)]

    async def main() -> None:
        await store_in(url, before)
        async with (
            topics_of(kafka_settings) as topics,
            charting(kafka_settings, url) as address,
            page_of(address) as page,
            page_of(address) as another,
        ):
            await until_kafka_is(page, "ok")
            await page.ask(BTC, "1m", 100)
            await page.until("the stored bars", lambda: len(page.bars) == 100)
            await asyncio.to_thread(postgres.stop)
            try:
                await topics.send(a_candle(3_000, 3_001))
                await page.until("a new bar", lambda: page.newest() == a_bar(a_candle(3_000, 3_001), CLOSED))
                status, answer = await older(address, "1m", min(page.bars), 10)
                assert status == 503
                assert "postgres" in answer["error"]
                await another.ask(ETH, "1m", 100)
                await another.until("what is wrong", lambda: another.told("error"))
                # A correction of a bar that is held nowhere but in the store: it is told when that is back.
                await topics.send(a_candle(2_950, 9_000), a_candle(100, 9_001))
                corrected = a_bar(a_candle(2_950, 9_000), CLOSED | CORRECTED)
                await page.until("a correction", lambda: page.bars[corrected[0]] == corrected)
            finally:
                await asyncio.to_thread(postgres.start)
            await another.ask(BTC, "1m", 3_001)
            await another.until("all bars", lambda: len(another.bars) == 3_001)
            expected = bars([*before, a_candle(3_000, 3_001)])
            expected[2_950], expected[100] = corrected, a_bar(a_candle(100, 9_001), CLOSED | CORRECTED)
            await another.until("all bars as they are", lambda: another.in_order() == expected)
            status, answer = await older(address, "1m", FIRST_US + 110 * MINUTE_US, 20)
            assert (status, answer["bars"]) == (200, expected[90:110])

    run(main())


def test_a_correction_of_a_part_long_ago_is_one_of_its_bar(kafka_settings: Settings, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/candles.db"
    before = [a_candle(number, number + 1, price=str(100 + number % 7)) for number in range(3_000)]

    async def main() -> None:
        await store_in(url, before)
        async with (
            topics_of(kafka_settings) as topics,
            charting(kafka_settings, url) as address,
            page_of(address) as page,
        ):
            await until_kafka_is(page, "ok")
            await page.ask(BTC, "15m", 200)
            await page.until("all bars", lambda: len(page.bars) == 200)
            correction = a_candle(31, 9_000, price="7", volume=Decimal("0.25"))
            await topics.send(correction)
            start = FIRST_US + 30 * MINUTE_US
            await page.until("the correction", lambda: page.bars[start][3] == "7")
            bar = page.bars[start]
            assert bar[4] == before[44].close.to_eng_string()
            assert (bar[5], bar[7], bar[8]) == (str(14 * Decimal("1.5") + Decimal("0.25")), 9_000, CLOSED | CORRECTED)
            # Whoever comes now, and scrolls back, is shown the same, as the store still has the candle before.
            status, answer = await older(address, "15m", start + 1, 1)
            assert (status, answer["bars"]) == (200, [bar])
            await store_in(url, [correction])
            status, answer = await older(address, "15m", start + 1, 1)
            assert answer["bars"][0][:8] == bar[:8]

    run(main())


@pytest.mark.slow
def test_what_neither_the_store_nor_the_server_has_is_no_hole(kafka_settings: Settings, tmp_path: Path) -> None:
    """A sink that stands still for longer than the server holds candles."""
    url = f"sqlite:///{tmp_path}/candles.db"
    candles = [a_candle(number, number + 1) for number in range(2_600)]

    async def main() -> None:
        await store_in(url, candles[:10])
        async with (
            topics_of(kafka_settings) as topics,
            charting(kafka_settings, url) as address,
            page_of(address) as page,
        ):
            await until_kafka_is(page, "ok")
            await page.ask(BTC, "1m", 20)
            await page.until("the stored bars", lambda: len(page.bars) == 10)
            await topics.send_all(candles)
            await page.until("all that comes", lambda: page.newest() == bars(candles[-1:])[0])
            # What is between the store and what is held is told to be lacking, and is there once the store has it.
            before = FIRST_US + 500 * MINUTE_US
            status, answer = await older(address, "1m", before, 400)
            assert (status, "the store lags behind" in answer["error"]) == (503, True)
            await store_in(url, candles)
            status, answer = await older(address, "1m", before, 400)
            assert (status, answer["bars"]) == (200, bars(candles[100:500]))
            await page.ask(BTC, "1m", 2_600)
            await page.until("all bars", lambda: len(page.bars) == 2_600)
            assert page.in_order() == bars(candles)

    run(main())


def test_a_row_of_the_markets_is_what_the_store_and_the_stream_add_up_to(
    kafka_settings: Settings, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/candles.db"
    this_hour = int(time.time()) // 3_600 - FIRST_US // HOUR_US
    hours = [
        a_candle(number, index + 1, timeframe="1h", price=f"{100 + index}.5", volume=Decimal(index) / 8)
        for index, number in enumerate(range(this_hour - 30, this_hour + 1))
    ]
    minute = a_candle(this_hour * 60, 99, price="140.25")

    def expected() -> list[str | float]:
        """As of now: the hour may end meanwhile."""
        start = (int(time.time()) // 3_600 - 23) * HOUR_US
        day = [candle for candle in hours if candle.open_time >= start]
        [before] = [candle for candle in hours if candle.close_time == start]
        volume = format_decimal(sum((candle.volume for candle in day), Decimal(0)))
        return ["140.25", round(140.25 / float(before.close) - 1, 6), volume]

    async def main() -> None:
        await store_in(url, hours[:-2])
        async with (
            topics_of(kafka_settings) as topics,
            charting(kafka_settings, url) as address,
            page_of(address) as page,
        ):
            await until_kafka_is(page, "ok")
            await topics.send(hours[-2])
            await topics.send(hours[-1], minute, live=True)
            await page.socket.send_json({"op": "markets"})
            row: dict[str, Any] = {}

            def is_there() -> bool:
                for message in page.told("markets"):
                    for each in message["rows"]:
                        row.update(each)
                return [row.get(field) for field in ("last", "change", "volume")] == expected()

            await page.until("the row", is_there)
            closes = [f"{100 + index}.5" for index in range(len(hours))]
            assert row["spark"] in (closes[-24:-1], closes[-23:])

    run(main())


@pytest.mark.kafka
@pytest.mark.slow
def test_a_broker_that_restarts_is_waited_for_and_bars_go_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/candles.db"
    broker = Broker(tmp_path / "kafka")
    broker.start(child=True, fresh=True)
    port = int(broker.bootstrap.rpartition(":")[2])
    settings = settings_of(broker.bootstrap)

    async def main() -> None:
        await renew_topics(settings)
        await store_in(url, [a_candle(0, 1)])
        async with charting(settings, url) as address, page_of(address) as page:
            async with topics_of(settings) as topics:
                await topics.send(a_candle(0, 1), a_candle(1, 2))
                await page.ask(BTC, "1m")
                await page.until("both bars", lambda: len(page.bars) == 2)
            broker.stop()
            await until_kafka_is(page, "down")
            # What is stored is shown all the same.
            async with page_of(address) as another:
                await another.ask(BTC, "1m")
                await another.until("the bars", lambda: len(another.bars) == 2)
            broker.start(port=port, child=True)
            async with topics_of(settings) as topics:
                await topics.send(a_candle(2, 3), a_candle(1, 4))
            await until_kafka_is(page, "ok")
            corrected = a_bar(a_candle(1, 4), CLOSED | CORRECTED)
            expected = [*bars([a_candle(0, 1)]), corrected, *bars([a_candle(2, 3)])]
            await page.until("what came", lambda: page.in_order() == expected)

    try:
        run(main())
    finally:
        broker.stop()
