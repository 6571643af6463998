"""The chart on a real Kafka with a real store: what a page is shown, whatever happens to either."""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest
from chart_kafka import topics_of
from chart_samples import a_bar, bars
from chart_server import PageOf, charting, page_of

from ashi.contracts.candle import Candle
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.instrument import Instrument
from ashi.contracts.topics import CANDLES
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.metrics.declare import REGISTRY
from ashi_chart import hub
from ashi_chart.candles.bars import CLOSED, COMPLETE, CORRECTED, INCOMPLETE
from ashi_chart.series import active, catch_up, loading
from ashi_sinks.registry import make_sink
from kafka_topics.grown_topics import grow_when_nobody_works
from kafka_topics.made_anew import make_anew
from samples.candles import BTC, ETH, FIRST_US, MINUTE_US, a_candle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ashi.runtime.settings import Settings
    from ashi_cli.onemachine.broker import Broker

BOUND_S = 90


def run(main: Any) -> None:
    asyncio.run(asyncio.wait_for(main, BOUND_S))


async def store_in(path: Path, candles: Sequence[Candle]) -> None:
    sink = make_sink(f"sqlite:///{path}")
    await sink.open()
    await sink.write(candles)
    await sink.close()


def a_status(complete_until: int, updated: int) -> FeedStatus:
    return FeedStatus(BTC, "connected", FIRST_US, None, "7", FIRST_US, FIRST_US + updated, complete_until)


def test_a_page_sees_what_is_stored_what_the_topic_adds_and_what_comes(
    kafka_settings: Settings, tmp_path: Path
) -> None:
    store = tmp_path / "candles.db"
    stored = [a_candle(window, window + 1) for window in range(30)]
    gap = FeedGap(BTC, FIRST_US, FIRST_US + 7, "open", 0, "silent", FIRST_US)

    async def main() -> None:
        await store_in(store, stored)
        async with topics_of(kafka_settings) as topics:
            # The store lags: 28 is corrected, 30 has closed, 31 is in progress.
            await topics.send(*stored[25:], a_candle(28, 40), a_candle(30, 41))
            await topics.send(gap, a_status(FIRST_US + 2 * MINUTE_US, 1))
            await topics.send(Instrument(BTC, "BTC", "JPY", None, None, "trading", FIRST_US))
            await topics.send(a_candle(31, 42), live=True)
            async with charting(kafka_settings, store) as address, page_of(address) as page:
                await page.ask(BTC, "1m")
                closed = bars([*stored[:28], a_candle(28, 40), stored[29], a_candle(30, 41)])
                closed[0][8] |= INCOMPLETE
                closed[1][8] |= COMPLETE
                expected = [*closed, a_bar(a_candle(31, 42), 0)]
                await page.until("all of it", lambda: page.in_order() == expected)
                assert page.snapshot is not None
                assert page.snapshot["more"] is False
                assert page.snapshot["gaps"] == [
                    {"from": FIRST_US, "to": FIRST_US + 7, "state": "open", "final": False, "trades_recovered": 0,
                     "reason": "silent"}
                ]  # fmt: skip
                assert page.snapshot["instrument"]["quote"] == "JPY"
                assert page.snapshot["feed"]["complete_until"] == FIRST_US + 2 * MINUTE_US

                await topics.send(a_candle(31, 43), live=True)
                await page.until("it moves", lambda: page.newest() == a_bar(a_candle(31, 43), 0))
                await topics.send(a_candle(31, 44), a_candle(29, 45))
                await page.until("it closes", lambda: page.newest() == a_bar(a_candle(31, 44), CLOSED))
                corrected = a_bar(a_candle(29, 45), CLOSED | CORRECTED)
                await page.until("a correction", lambda: page.bars[corrected[0]] == corrected)

                await topics.send(
                    msgspec.structs.replace(gap, state="repaired", trades_recovered=3, updated_at=FIRST_US + 9),
                    a_status(FIRST_US + 3 * MINUTE_US, 2),
                )
                await page.until("the gap is repaired", lambda: page.gaps[FIRST_US]["state"] == "repaired")
                await page.until(
                    "all three are complete",
                    lambda: [page.bars[FIRST_US + each * MINUTE_US][8] for each in range(4)] == [5, 5, 5, 1],
                )
                await page.until("the feed has come further", lambda: page.told("feed"))
                # Nothing that was told twice over; each change is one message at most.
                await topics.send(a_candle(31, 44), a_candle(29, 45))
                await page.socket.send_json({"op": "ping"})
                states = len(page.told("state"))
                await page.until("an answer", lambda: len(page.told("state")) > states)

                await page.ask(BTC, "5m")
                await page.until_snapshot()
                assert page.snapshot["timeframe"] == "5m"
                assert [bar[0] for bar in page.in_order()] == [FIRST_US + 5 * each * MINUTE_US for each in range(7)]
                first = page.bars[FIRST_US]
                assert first[1:9] == ["1", "6", "1", "5", "7.5", 15, 5, CLOSED]
                await page.ask(BTC, "7m")
                await page.until("it cannot be had", lambda: "'7m'" in str(page.told("error")[-1:]))
                assert "cannot be had in '7m': there is 1m, 5m" in page.told("error")[-1]["message"]
                await page.ask("bitflyer:BTC_JPX", "1m")
                await page.until("it is not known", lambda: "JPX" in page.told("error")[-1]["message"])
                assert page.told("error")[-1]["message"].endswith("; did you mean bitflyer:BTC_JPY?")
            async with charting(kafka_settings, store) as address, aiohttp.ClientSession() as client:
                before = str(FIRST_US + 10 * MINUTE_US)
                query = {"symbol": BTC, "timeframe": "1m", "before": before, "limit": "4"}
                async with client.get(f"{address}api/bars", params=query) as answer:
                    older = await answer.json()
                assert [bar[0] for bar in older["bars"]] == [FIRST_US + each * MINUTE_US for each in (6, 7, 8, 9)]
                assert (older["symbol"], older["timeframe"], older["more"], older["gaps"]) == (BTC, "1m", True, [])
                for wrong in ({"limit": "0"}, {"before": "now"}, {"symbol": "x"}, {"timeframe": "7m"}):
                    async with client.get(f"{address}api/bars", params=query | wrong) as answer:
                        assert answer.status == 400
                        assert (await answer.json())["error"]

    run(main())


def test_a_store_that_is_not_there_yet_is_no_hole_once_it_is(kafka_settings: Settings, tmp_path: Path) -> None:
    store = tmp_path / "candles.db"

    async def main() -> None:
        async with (
            topics_of(kafka_settings) as topics,
            charting(kafka_settings, store) as address,
            page_of(address) as page,
        ):
            await topics.send(a_candle(0, 1), a_candle(1, 2))
            await page.ask(BTC, "1m")
            await page.until("that the store is away", lambda: page.told("error"))
            await topics.send(a_candle(2, 3))
            await store_in(store, [a_candle(0, 1)])
            await page.until("all bars", lambda: page.snapshot and not page.snapshot["more"] and len(page.bars) == 3)
            assert page.in_order() == bars([a_candle(0, 1), a_candle(1, 2), a_candle(2, 3)])

    run(main())


@asynccontextmanager
async def page_and_server(
    settings: Settings, store: Path
) -> AsyncIterator[tuple[PageOf, Callable[[], Awaitable[None]]]]:
    """A page of a server that can be stopped under it."""
    async with AsyncExitStack() as server:
        address = await server.enter_async_context(charting(settings, store))
        async with page_of(address) as page:
            yield page, server.aclose


def test_a_page_that_reconnects_after_a_restart_has_missed_nothing(kafka_settings: Settings, tmp_path: Path) -> None:
    store = tmp_path / "candles.db"

    async def main() -> None:
        await store_in(store, [a_candle(0, 1)])
        async with topics_of(kafka_settings) as topics:
            await topics.send(a_candle(0, 1))
            async with page_and_server(kafka_settings, store) as (page, stop):
                await page.ask(BTC, "1m")
                await page.until_snapshot()
                first = page.messages[0]["server"]
                await page.socket.send_json({"op": "markets"})
                await page.until("its market", lambda: "last" in str(page.told("markets")[-1:]))
                assert page.told("markets")[0]["all"] is True
                [row] = page.told("markets")[-1]["rows"]
                assert (row["symbol"], row["last"]) == (BTC, "1")
                await stop()
                farewell = await page.socket.receive()
                assert (farewell.type, farewell.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)
            await topics.send(a_candle(1, 2), a_candle(0, 3))
            async with charting(kafka_settings, store) as address, page_of(address) as page:
                await page.ask(BTC, "1m", 1)
                # At first the store alone may be shown, if reading the topic takes long.
                await page.until("the newest", lambda: page.shows(bars([a_candle(1, 2)]), more=True))
                assert page.messages[0]["server"] != first
                await page.ask(BTC, "1m", 2)
                await page.until("both", lambda: page.shows(bars([a_candle(0, 3), a_candle(1, 2)]), more=False))

    run(main())


def test_topics_that_are_given_more_partitions_are_read_on(kafka_settings: Settings, tmp_path: Path) -> None:
    """A symbol goes on in another partition, closed and in progress, under a page that stays."""
    more = kafka_settings.partitions + 6
    assert partition_of(BTC.encode(), more) != partition_of(BTC.encode(), kafka_settings.partitions)

    async def main() -> None:
        store = tmp_path / "candles.db"
        await store_in(store, [a_candle(0, 1)])
        async with charting(kafka_settings, store) as address, page_of(address) as page:
            async with topics_of(kafka_settings) as topics:
                await topics.send(a_candle(1, 2))
                await page.ask(BTC, "1m")
                await page.until("both bars", lambda: page.in_order() == bars([a_candle(0, 1), a_candle(1, 2)]))
            await grow_when_nobody_works(kafka_settings, more)
            async with topics_of(kafka_settings) as topics:
                await topics.send(a_candle(0, 3), a_candle(2, 4))
                await topics.send(a_candle(3, 5), live=True)
                expected = bars([a_candle(0, 3), a_candle(1, 2), a_candle(2, 4)])
                expected[0][8] |= CORRECTED
                expected.append(a_bar(a_candle(3, 5), 0))
                await page.until("all of them", lambda: page.in_order() == expected)

    run(main())


def test_a_topic_that_is_made_anew_is_read_anew(kafka_settings: Settings, tmp_path: Path) -> None:
    store = tmp_path / "candles.db"

    async def main() -> None:
        await store_in(store, [a_candle(0, 1)])
        async with charting(kafka_settings, store) as address, page_of(address) as page:
            async with topics_of(kafka_settings) as topics:
                await topics.send(a_candle(0, 1), a_candle(1, 2))
                await page.ask(BTC, "1m")
                await page.until("both bars", lambda: len(page.bars) == 2)
            await make_anew(kafka_settings, CANDLES)
            async with topics_of(kafka_settings) as topics:
                await topics.send(a_candle(2, 3))
                await page.until("the bar of the new topic", lambda: FIRST_US + 2 * MINUTE_US in page.bars)

    run(main())


def test_a_kafka_that_does_not_answer_is_told_and_nothing_is_missed_by_it(
    kafka: Broker, kafka_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "WATCH_S", 0.1)
    monkeypatch.setattr(hub, "SILENT_S", 0.5)
    monkeypatch.setattr(loading, "PATIENCE_S", 0.5)
    store = tmp_path / "candles.db"
    assert kafka.process is not None
    broker = kafka.process

    async def main() -> None:
        await store_in(store, [a_candle(0, 1), a_candle(0, 1, ETH)])
        async with (
            topics_of(kafka_settings) as topics,
            charting(kafka_settings, store) as address,
            page_of(address) as page,
            page_of(address) as later,
        ):
            await topics.send(a_candle(1, 2), a_candle(1, 2, ETH))
            await page.ask(BTC, "1m")
            await page.until("both bars", lambda: page.in_order() == bars([a_candle(0, 1), a_candle(1, 2)]))
            broker.send_signal(signal.SIGSTOP)
            try:
                await page.until("that Kafka is down", lambda: page.told("state")[-1]["kafka"] == "down")
                lag_s = REGISTRY.get_sample_value("ashi_chart_lag_seconds")
                assert lag_s is not None
                assert math.isnan(lag_s), "how far behind it is cannot be known"
                await later.ask(ETH, "1m")
                await later.until("what is lacking", lambda: later.told("error"))
                assert later.in_order() == bars([a_candle(0, 1, ETH)])
                assert later.told("error")[-1]["message"] == "the newest bars are lacking: Kafka cannot be read"
            finally:
                broker.send_signal(signal.SIGCONT)
            await page.until("that Kafka is back", lambda: page.told("state")[-1]["kafka"] == "ok")
            lag_s = REGISTRY.get_sample_value("ashi_chart_lag_seconds")
            assert lag_s is not None
            assert lag_s >= 0.0
            await topics.send(a_candle(2, 3), a_candle(0, 4), a_candle(2, 3, ETH))
            expected = [a_bar(a_candle(0, 4), CLOSED | CORRECTED), *bars([a_candle(1, 2), a_candle(2, 3)])]
            await page.until("what came", lambda: page.in_order() == expected)
            expected_later = bars([a_candle(0, 1, ETH), a_candle(1, 2, ETH), a_candle(2, 3, ETH)])
            await later.until("all", lambda: later.in_order() == expected_later)
            assert len(page.told("snapshot")) <= 2, "the series was there all the time"

    run(main())


def test_a_correction_of_a_bar_that_is_long_past_is_made_anew_of_what_is_stored(
    kafka_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(active, "PARTS", 20)
    monkeypatch.setattr(catch_up, "PARTS", 20)
    monkeypatch.setattr(loading, "PARTS", 20)
    store = tmp_path / "candles.db"
    stored = [a_candle(window, window + 1) for window in range(100)]

    async def main() -> None:
        await store_in(store, stored)
        async with (
            topics_of(kafka_settings) as topics,
            charting(kafka_settings, store) as address,
            page_of(address) as page,
        ):
            await topics.send(stored[-1])
            await page.ask(BTC, "5m", 15)
            await page.until("15 bars", lambda: len(page.bars) == 15 and page.snapshot and page.snapshot["more"])
            old = FIRST_US + 30 * MINUTE_US
            assert page.bars[old][1:8] == ["31", "36", "31", "35", "7.5", 15, 35]
            await topics.send(a_candle(31, 200, price="90"))
            await page.until("it is another one", lambda: page.bars[old][8] == CLOSED | CORRECTED)
            assert page.bars[old][1:8] == ["31", "91", "31", "35", "7.5", 15, 200]
            assert [bar for bar in page.in_order() if bar[8] != CLOSED] == [page.bars[old]]

    run(main())
