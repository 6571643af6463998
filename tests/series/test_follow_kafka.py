"""Series that are followed on a real Kafka: what was there, what comes, and where both meet, under load."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from ashi.contracts.candle import Candle, encode_candle
from ashi.contracts.errors import ContractError, StorageError, UsageError
from ashi.contracts.feed import FeedGap, FeedStatus, encode_feed
from ashi.contracts.records import live_key
from ashi.contracts.topics import CANDLES, CANDLES_LIVE, FEED_GAPS, FEED_STATUS
from ashi.runtime.kafka.connections.clients import make_producer
from ashi_series import Closed, Corrected, Gap, InProgress, follow
from ashi_sinks.registry import make_sink
from kafka_topics.made_anew import delete, make_anew
from samples.candles import BTC, ETH, FIRST_US, MINUTE_US, a_candle

if TYPE_CHECKING:
    from ashi.runtime.settings import Settings
    from ashi_series import Event, Following

BOUND_S = 30


def run(main: Any) -> Any:
    return asyncio.run(asyncio.wait_for(main, BOUND_S * 3))


async def send(settings: Settings, *messages: Candle | FeedGap | FeedStatus, live: bool = False) -> None:
    """Send messages, one after the other; candles with `live` to the topic of those in progress."""
    producer = make_producer(settings)
    await producer.start()
    try:
        for message in messages:
            await _send(producer, message, live=live)
    finally:
        await producer.stop()


async def _send(producer: Any, message: Candle | FeedGap | FeedStatus, *, live: bool = False) -> None:
    key = message.symbol.encode()
    if isinstance(message, FeedGap):
        await producer.send_and_wait(FEED_GAPS, encode_feed(message), key)
    elif isinstance(message, FeedStatus):
        await producer.send_and_wait(FEED_STATUS, encode_feed(message), key)
    elif live:
        await producer.send_and_wait(CANDLES_LIVE, encode_candle(message), live_key(message.symbol, message.timeframe))
    else:
        await producer.send_and_wait(CANDLES, encode_candle(message), key)


async def send_unreadable(settings: Settings) -> None:
    """Send a candle in progress that is none."""
    producer = make_producer(settings)
    await producer.start()
    await producer.send_and_wait(CANDLES_LIVE, b"{}", live_key(BTC, "1m"))
    await producer.stop()


async def take(following: Following, count: int) -> list[Event]:
    async with asyncio.timeout(BOUND_S):
        return [await anext(following) for _ in range(count)]


def a_status(complete_until: int, updated: int) -> FeedStatus:
    return FeedStatus(BTC, "connected", FIRST_US, None, "7", FIRST_US, FIRST_US + updated, complete_until)


def test_what_was_there_fills_the_series_and_what_comes_is_told(kafka_settings: Settings) -> None:
    gap = FeedGap(BTC, FIRST_US, FIRST_US + 7, "open", 0, "silent", FIRST_US)
    repaired = msgspec.structs.replace(gap, state="repaired", updated_at=FIRST_US + 1)

    async def main() -> None:
        await send(kafka_settings, a_candle(0, 1), a_candle(1, 2), a_candle(0, 3), a_candle(0, 4, ETH))
        await send(kafka_settings, gap, a_status(FIRST_US + MINUTE_US, 1))
        await send(kafka_settings, a_candle(2, 5), live=True)
        async with follow(kafka_settings, symbols=[BTC], timeframes=["1m"]) as following:
            series = following.store.get_series(BTC, 60)
            assert list(series) == [a_candle(0, 3), a_candle(1, 2)]
            assert [following.store.is_complete(candle) for candle in series] == [False, None]
            assert await take(following, 1) == [InProgress(a_candle(2, 5))]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await anext(following)

            await send(kafka_settings, repaired)
            assert await take(following, 1) == [Gap(repaired)]
            assert following.store.is_complete(series[0]) is True
            await send(kafka_settings, a_candle(2, 5), live=True)
            await send_unreadable(kafka_settings)
            await send(kafka_settings, a_candle(2, 7), live=True)
            assert await take(following, 1) == [InProgress(a_candle(2, 7))]
            await send(kafka_settings, a_candle(2, 8), a_candle(2, 8), a_candle(1, 9), a_candle(7, 10, ETH))
            assert await take(following, 2) == [Closed(a_candle(2, 8)), Corrected(a_candle(1, 9), a_candle(1, 2))]
            assert (series.in_progress, [candle.version for candle in series]) == (None, [3, 9, 8])

    run(main())


def test_without_asyncio_the_same_is_told(kafka_settings: Settings) -> None:
    gap = FeedGap(BTC, FIRST_US, FIRST_US + 7, "open", 0, "silent", FIRST_US)
    asyncio.run(send(kafka_settings, a_candle(0, 1), a_candle(1, 2), a_candle(0, 3)))
    with follow(kafka_settings, symbols=[BTC], timeframes=["1m"], since=FIRST_US + MINUTE_US) as following:
        series = following.store.get_series(BTC, 60)
        assert list(series) == [a_candle(0, 3)]
        assert next(following) == Closed(a_candle(1, 2))
        assert following.next_within(0.1) is None
        asyncio.run(send(kafka_settings, a_candle(2, 5), live=True))
        assert following.next_within(BOUND_S) == InProgress(a_candle(2, 5))
        asyncio.run(send(kafka_settings, gap))
        assert following.next_within(BOUND_S) == Gap(gap)
        asyncio.run(send(kafka_settings, a_candle(2, 8), a_candle(1, 9)))
        told = [following.next_within(BOUND_S) for _ in range(2)]
        assert told == [Closed(a_candle(2, 8)), Corrected(a_candle(1, 9), a_candle(1, 2))]
        position = following.position
    assert list(following) == []
    with follow(kafka_settings, symbols=[BTC], timeframes=["1m"], history=position, in_progress=False) as following:
        assert len(following.store.get_series(BTC, 60)) <= 2  # it is behind nothing that was not handed out


def test_candles_since_a_time_are_told_as_they_are_now_before_what_comes(kafka_settings: Settings) -> None:
    async def main() -> None:
        await send(kafka_settings, a_candle(0, 1), a_candle(1, 2), a_candle(2, 3), a_candle(1, 4), a_candle(0, 5, ETH))
        following = follow(
            kafka_settings, symbols=[BTC, ETH], timeframes=[60], since=FIRST_US + MINUTE_US, in_progress=False
        )
        async with following:
            assert list(following.store.get_series(BTC, 60)) == [a_candle(0, 1)]
            await send(kafka_settings, a_candle(3, 6))
            told = await take(following, 3)
            assert told == [Closed(a_candle(1, 4)), Closed(a_candle(2, 3)), Closed(a_candle(3, 6))]

    run(main())


def test_a_position_is_behind_nothing_that_was_not_handed_out(kafka_settings: Settings) -> None:
    async def main() -> None:
        await send(kafka_settings, a_candle(0, 1))
        following = follow(kafka_settings, symbols=[BTC], timeframes=["1m"], in_progress=False)
        with pytest.raises(UsageError, match="async with"):
            following.position  # noqa: B018
        async with following:
            at_first = following.position
            await send(kafka_settings, *(a_candle(window, 1 + window) for window in range(1, 4)))
            await take(following, 2)
            between = following.position
            await take(following, 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await anext(following)
            afterwards = following.position
        with pytest.raises(StopAsyncIteration):
            await anext(following)
        for position, windows in ((at_first, [1, 2, 3]), (afterwards, [])):
            async with follow(kafka_settings, symbols=[BTC], timeframes=["1m"], history=position) as again:
                assert [candle.version - 1 for candle in again.store.get_series(BTC, 60)] == windows
        async with follow(kafka_settings, symbols=[BTC], timeframes=["1m"], history=between) as again:
            assert again.store.get_latest(BTC, 60) == a_candle(3, 4)

    run(main())


def test_what_ends_the_reading_is_raised_after_what_came_before_it(kafka_settings: Settings) -> None:
    async def main() -> None:
        async with follow(kafka_settings, symbols=[BTC], timeframes=["1m"], in_progress=False) as following:
            producer = make_producer(kafka_settings)
            await producer.start()
            await _send(producer, a_candle(0, 1))
            await producer.send_and_wait(CANDLES, b"{}", BTC.encode())
            await producer.stop()
            assert await take(following, 1) == [Closed(a_candle(0, 1))]
            with pytest.raises(ContractError, match="cannot be read"):
                await take(following, 1)
            with pytest.raises(StopAsyncIteration):
                await anext(following)

    run(main())


@pytest.mark.slow
def test_candles_that_close_are_told_whatever_becomes_of_the_topic_of_those_in_progress(
    kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ashi_series.following.LIVE_AGAIN_S", 0.1)

    async def in_progress(following: Following, version: int) -> None:
        """Send updates until one is told: reading anew begins with what comes."""
        async with asyncio.timeout(BOUND_S):
            while True:
                await send(kafka_settings, a_candle(9, version), live=True)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        event = await anext(following)
                    assert isinstance(event, InProgress)
                    return
                version += 1

    async def main() -> None:
        await delete(kafka_settings, CANDLES_LIVE)
        async with follow(kafka_settings, symbols=[BTC], timeframes=["1m"]) as following:
            await send(kafka_settings, a_candle(0, 1))
            assert await take(following, 1) == [Closed(a_candle(0, 1))]
            await make_anew(kafka_settings, CANDLES_LIVE)
            await in_progress(following, 100)
            await make_anew(kafka_settings, CANDLES_LIVE)
            await in_progress(following, 1_000)
            await send(kafka_settings, a_candle(1, 2))
            assert await take(following, 1) == [Closed(a_candle(1, 2))]

    run(main())
    assert "has no topic 'candles.live'" in caplog.text


def test_a_store_that_is_not_there_is_told(kafka_settings: Settings, tmp_path: Path) -> None:
    async def main() -> None:
        history = f"sqlite:///{tmp_path / 'none.db'}"
        with pytest.raises(StorageError, match="does not exist"):
            async with follow(kafka_settings, symbols=[BTC], timeframes=["1m"], history=history):
                pass

    run(main())


class Market:
    """Seconds of many symbols that close as time passes, are corrected, and are said to be in progress before.

    It goes on for two seconds after `followers` have begun.

    Attributes:
        newest: the last version of each candle, by symbol and open time.
        begun: how many have.

    """

    def __init__(self, settings: Settings, symbols: list[str], followers: int) -> None:
        self.begun = 0
        self._followers = followers
        self._settings = settings
        self._symbols = symbols
        self._version = 0
        self.newest: dict[tuple[str, int], Candle] = {}

    async def run(self) -> None:
        producer = make_producer(self._settings)
        await producer.start()
        try:
            first = second = int(time.time())
            left = 2
            while left:
                left -= self.begun == self._followers
                for part in range(4):
                    await asyncio.sleep(max(0.0, second + (part + 1) / 4 - time.time()))
                    await asyncio.gather(
                        *[_send(producer, self._candle(symbol, second), live=True) for symbol in self._symbols]
                    )
                closed = [self._candle(symbol, second) for symbol in self._symbols]
                corrected = [self._candle(symbol, second - 1) for symbol in self._symbols if second > first]
                for candle in closed + corrected:
                    self.newest[candle.symbol, candle.open_time] = candle
                await asyncio.gather(*[_send(producer, candle) for candle in closed + corrected])
                second += 1
        finally:
            await producer.stop()

    def _candle(self, symbol: str, second: int) -> Candle:
        self._version += 1
        return a_candle(second - FIRST_US // 1_000_000, self._version, symbol, "1s")


async def store_behind(settings: Settings, url: str) -> None:
    """Fill a store from the topic as a sink does, in batches, some way behind it."""
    from ashi.client import read_candles
    from ashi_sinks.protocol import newest

    sink = make_sink(url)
    await sink.open()
    try:
        async with read_candles(settings) as candles:
            while True:
                batch = [await anext(candles) for _ in range(50)]
                await sink.write(newest(batch))
                await asyncio.sleep(0.15)
    finally:
        await sink.close()


@pytest.mark.slow
def test_under_load_a_store_and_the_stream_are_joined_without_a_hole_or_a_double(
    kafka_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Followers begin while candles close, are corrected and are stored, each wherever the store is just then."""
    # So that the time from which the topic is read is within it.
    monkeypatch.setattr("ashi_series.join.APPENDED_BEFORE_US", 1_000_000)
    monkeypatch.setattr("ashi_series.following.MOST_WAITING", 30)  # so that the reading has to wait for who asks
    symbols = [f"bitflyer:M{number}" for number in range(100)]
    url = f"sqlite:///{tmp_path / 'candles.db'}"
    sinces = [None, int(time.time() * 1_000_000) + 2_000_000, None, 0]
    market = Market(kafka_settings, symbols, len(sinces))
    told: dict[int, list[Event]] = {}
    silent: dict[int, dict[tuple[str, int], Candle]] = {}

    async def follower(number: int, wanted: list[str], since: int | None) -> None:
        await asyncio.sleep(1.5 + number * 0.7)  # wherever the store is by then
        async with follow(kafka_settings, symbols=wanted, timeframes=["1s"], history=url, since=since) as following:
            held = [candle for symbol in wanted for candle in following.store.get_series(symbol, 1)]
            silent[number] = {(candle.symbol, candle.open_time): candle for candle in held}
            events = told[number] = []
            market.begun += 1
            while True:
                try:
                    async with asyncio.timeout(0.2):
                        events.append(await anext(following))
                except TimeoutError:
                    held = [candle for symbol in wanted for candle in following.store.get_series(symbol, 1)]
                    expected = [
                        market.newest[key] for symbol in wanted for key in sorted(market.newest) if key[0] == symbol
                    ]
                    if market_ended.is_set() and held == expected:
                        return

    market_ended = asyncio.Event()

    async def main() -> None:
        storing = asyncio.create_task(store_behind(kafka_settings, url))
        followers = [
            asyncio.create_task(follower(number, symbols[number::5], since)) for number, since in enumerate(sinces)
        ]
        await market.run()
        market_ended.set()
        async with asyncio.timeout(BOUND_S):
            await asyncio.gather(*followers)
        storing.cancel()
        await asyncio.gather(storing, return_exceptions=True)

    run(main())
    for number, since in enumerate(sinces):
        known = dict(silent[number])
        assert all(since is None or candle.close_time <= since for candle in known.values())
        for event in told[number]:
            if isinstance(event, Closed):
                key = (event.candle.symbol, event.candle.open_time)
                assert key not in known, "told once"
                known[key] = event.candle
            elif isinstance(event, Corrected):
                key = (event.candle.symbol, event.candle.open_time)
                assert event.replaced == known[key]
                known[key] = event.candle
        wanted = set(symbols[number::5])
        assert known == {key: candle for key, candle in market.newest.items() if key[0] in wanted}
    kinds = {type(event) for events in told.values() for event in events}
    assert kinds >= {Closed, Corrected}
    assert len(silent[0]) > 0, "something was there when the first began"
