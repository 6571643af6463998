"""Store, topic and stream, each as far as it happens to be: a page ends with what is true, and all that it wants."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from chart_samples import PageInMemory, a_log, truth_of

from ashi.contracts.candle import Candle
from ashi.contracts.errors import StorageError, UsageError
from ashi.contracts.feed import FeedGap
from ashi.runtime.settings import Settings
from ashi_chart.candles import rolling
from ashi_chart.candles.bars import CLOSED
from ashi_chart.candles.coverage import Coverage
from ashi_chart.candles.rollup import offered
from ashi_chart.series import active, catch_up, loading, series_set
from ashi_chart.series.active import Key
from ashi_chart.series.catch_up import Streamed
from ashi_chart.series.series_set import SeriesSet
from ashi_sinks.protocol import SeriesSpan
from samples.candles import BTC, ETH, FIRST_US, MINUTE_US, a_candle

SETTINGS = Settings.from_environment({"ASHI_TIMEFRAMES": "1m"})
ROLLUPS = offered(SETTINGS.timeframes)


class StoreInMemory:
    """What a sink has stored of a log, as the chart asks for it; it may be away."""

    def __init__(self, log: Sequence[Candle]) -> None:
        self.log = log
        self.reaches = 0
        self.is_away = False

    async def ask(self, question: Callable[[Any], Awaitable[Any]]) -> Any:
        await asyncio.sleep(0)
        if self.is_away:
            raise StorageError("away")
        return await question(self)

    async def spans(self) -> list[SeriesSpan]:
        if self.is_away:
            raise StorageError("away")
        opens = [candle.open_time for candle in self.log[: self.reaches]]
        return [SeriesSpan(BTC, "1m", min(opens), max(opens))] if opens else []

    async def all_spans(self) -> list[SeriesSpan]:
        return await self.spans()

    async def venue_spans(self) -> list[SeriesSpan]:
        return []

    async def gaps(self, symbol: str) -> list[FeedGap]:
        return []

    async def read(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[Candle]:
        newest: dict[int, Candle] = {}
        for candle in self.log[: self.reaches]:
            known = newest.get(candle.open_time)
            if known is None or candle.version > known.version:
                newest[candle.open_time] = candle
        opens = [each for each in sorted(newest) if (start is None or each >= start) and (end is None or each < end)]
        for open_time in opens if limit is None else opens[-limit:]:
            await asyncio.sleep(0)
            yield newest[open_time]


def a_set(store: StoreInMemory) -> SeriesSet:
    return SeriesSet(SETTINGS, store, lambda _: Coverage(), lambda _: None)  # type: ignore[arg-type]


class PageOfSet(PageInMemory):
    """Does with a set of series what a conversation does."""

    def __init__(self, held: SeriesSet, key: Key, count: int) -> None:
        super().__init__()
        self.more = True
        self._set = held
        self._count = count
        self.series = held.watch(key, ROLLUPS[key.timeframe], self)

    async def take(self) -> None:
        if self.out.wants_snapshot and self.series.is_loaded:
            self.out.begin_snapshot()
            found, self.more = await self._set.newest(self.series, self._count)
            self.replace(found)
            assert list(self.bars) == sorted(self.bars)
        if not self.out.wants_snapshot:
            self.take_bars()


@pytest.fixture(autouse=True)
def _little_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (active, catch_up, loading):
        monkeypatch.setattr(module, "PARTS", 6)
    for module in (active, series_set):
        monkeypatch.setattr(module, "MOST_HELD", 12)
    monkeypatch.setattr(catch_up, "MOST_KEPT", 100)
    monkeypatch.setattr(rolling, "CORRECTIONS", 100)


@pytest.mark.parametrize("name", ["1m", "5m"])
@pytest.mark.parametrize("seed", range(80))
def test_whatever_the_store_and_the_topic_have_come_to_a_page_ends_with_what_is_true(seed: int, name: str) -> None:
    """By chance, and not by properties that are shrunk: it takes long logs for what is held to be too little."""
    chance = random.Random(seed)
    log = a_log(
        [
            (chance.choice([0, 0, 0, 1, 2, 5, 15, 25]), chance.random() < 0.3)
            for _ in range(chance.choice([chance.randint(1, 60), 200]))
        ]
    )
    begin = chance.randint(0, len(log))
    places = range(begin, len(log) + 1)
    loads = set(chance.choices(places, k=chance.randint(0, 3)))
    takes = set(chance.choices(places, k=chance.randint(0, 8)))
    away = set(chance.choices(places, k=chance.randint(0, 20)))
    count, lag, at_once = chance.randint(1, 60), chance.choice([0, 3, 20, 60, 100]), chance.random()
    lags_still = chance.random() < 0.5

    async def main() -> None:
        store = StoreInMemory(log)
        held = a_set(store)
        held.on_topic(can_be_read=True)
        page = PageOfSet(held, Key(BTC, name), count)
        place = begin

        async def read(self: Streamed, settings: Settings, since: object) -> None:
            for candle in log[max(store.reaches - 3, 0) if store.reaches and not store.is_away else 0 : place]:
                self.take(candle)

        async def from_somewhere(*_: object) -> int:
            return 1

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Streamed, "read", read)
            patched.setattr(loading, "lacking_from", from_somewhere)
            patched.setattr(loading, "WITHOUT_STORE_US", 10**17)
            patched.setattr(series_set, "AGAIN_S", 0.0)

            async def load() -> None:
                held._to_load.clear()
                await held._load_all([page.series])

            for place in range(begin, len(log) + 1):
                store.reaches, store.is_away = max(place - lag, 0), place in away
                if place in loads:
                    await load()
                if place in takes:
                    await page.take()
                if place < len(log):
                    held.take(log[place], is_closed=True)
                    if chance.random() < at_once:
                        await asyncio.sleep(0)
            store.is_away = False
            if not lags_still:
                store.reaches = len(log)
            newcomer = PageOfSet(held, Key(BTC, name), count)
            for _ in range(3):
                if held._to_load or not page.series.is_loaded or page.series.trouble:
                    await load()
                for _ in range(400):
                    await asyncio.sleep(0)
                for each in (page, newcomer, page, newcomer):
                    await each.take()
            for task in held._tasks:
                task.cancel()
        truth = truth_of(ROLLUPS[name], log)
        for each in (page, newcomer):
            shown = {time: (bar.volume, bar.trade_count) for time, bar in each.bars.items()}
            assert shown == {time: bar for time, bar in truth.items() if time >= min(shown, default=2**62)}
            assert len(shown) >= min(count, len(truth)) or each.more
            assert each.more or len(shown) >= len(truth)

    asyncio.run(main())


def test_more_bars_than_are_held_are_read_once_for_all_who_want_them() -> None:
    log = [a_candle(window, 1) for window in range(200)]

    async def main() -> None:
        store = StoreInMemory(log)
        store.reaches = 200
        held = a_set(store)
        pages = [PageOfSet(held, Key(BTC, "1m"), 12) for _ in range(5)]
        pages[0].series.load(log[190:], log[190].open_time)
        asked = 0
        before = store.ask

        async def ask(question: Callable[[Any], Awaitable[Any]]) -> Any:
            nonlocal asked
            asked += 1
            return await before(question)

        store.ask = ask
        await asyncio.gather(*(page.take() for page in pages))
        assert asked == 1
        assert all(len(page.bars) == 12 and page.more for page in pages)
        assert {bar.flags for bar in pages[0].bars.values()} == {CLOSED}
        many = PageOfSet(held, Key(BTC, "1m"), 150)
        await many.take()
        assert (len(many.bars), many.more, pages[0].series.held[0]) == (150, True, 12)
        everything = PageOfSet(held, Key(BTC, "1m"), 1_000)
        await everything.take()
        assert (len(everything.bars), everything.more) == (200, False)

    asyncio.run(main())


def test_what_nobody_looks_at_is_forgotten_after_a_while_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        held = a_set(StoreInMemory([]))
        page = PageOfSet(held, Key(BTC, "1m"), 12)
        held._forget(page.series.left_s + 10_000)
        assert list(held.of_symbol(BTC)) == [page.series]
        held.leave(page.series, page)
        held._forget(page.series.left_s + series_set.KEPT_S - 1)
        assert list(held.of_symbol(BTC)) == [page.series]
        held._forget(page.series.left_s + series_set.KEPT_S + 1)
        assert list(held.of_symbol(BTC)) == []
        held.take(a_candle(0, 1), is_closed=True)

        monkeypatch.setattr(series_set, "MOST_SERIES", 2)
        first, second = PageOfSet(held, Key(BTC, "1m"), 1), PageOfSet(held, Key(BTC, "5m"), 1)
        with pytest.raises(UsageError, match="2 series are being looked at"):
            PageOfSet(held, Key(BTC, "15m"), 1)
        held.leave(first.series, first)
        third = PageOfSet(held, Key(BTC, "15m"), 1)
        assert set(held.of_symbol(BTC)) == {second.series, third.series}

    asyncio.run(main())


def test_a_market_that_rests_is_shown_in_the_timeframes_of_those_that_trade(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        store = StoreInMemory([])
        hour = 60 * MINUTE_US
        last = {"1m": FIRST_US + 10 * MINUTE_US, "1h": FIRST_US}  # nobody traded, and no flat candles: the hour closed
        spans = [SeriesSpan(BTC, name, FIRST_US, time) for name, time in last.items()]
        spans += [
            SeriesSpan(ETH, "1m", FIRST_US, 10 * hour + FIRST_US),
            SeriesSpan(ETH, "1h", FIRST_US, 9 * hour + FIRST_US),
        ]
        spans += [SeriesSpan(BTC, "5m", 0, 0)]  # of other settings, once

        async def told() -> list[SeriesSpan]:
            return spans

        monkeypatch.setattr(store, "spans", told)
        made = await a_set(store).timeframes(BTC)
        assert list(made) == ["1m", "5m", "15m", "30m", "1h", "2h", "4h", "12h", "1d", "1w"]
        assert {str(made[name].source) for name in ("1m", "5m", "30m")} == {"1m"}

    asyncio.run(main())


def test_a_symbol_or_timeframe_that_there_is_not_is_said_with_what_may_be_meant() -> None:
    async def main() -> None:
        store = StoreInMemory([a_candle(0, 1)])
        store.reaches = 1
        held = a_set(store)
        assert (await held.find(Key(BTC, "1w"), ())).source == SETTINGS.timeframes[0]
        assert (await held.find(Key("new:MARKET", "1m"), {"new:MARKET"})).is_identity
        for key, sentence in (
            (Key("bitflyer:btc_jpy", "1m"), f"nothing is known of 'bitflyer:btc_jpy'; did you mean {BTC}?"),
            (Key("x", "1m"), "nothing is known of 'x'"),
            (Key(BTC, "7m"), f"{BTC} cannot be had in '7m': there is 1m, 5m, 15m, 30m, 1h, 2h, 4h, 12h, 1d, 1w"),
        ):
            with pytest.raises(UsageError) as refused:
                await held.find(key, ())
            assert str(refused.value) == sentence
        store.is_away = True
        assert (await held.find(Key(BTC, "5m"), {BTC})).target.name == "5m"

    asyncio.run(main())


def test_a_store_that_lags_further_behind_than_what_is_held_makes_the_topic_be_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = [a_candle(window, window + 1) for window in range(60)]
    read_from: list[int] = []

    async def read(self: Streamed, settings: Settings, since: object) -> None:
        read_from.append(store.reaches)
        for candle in log[max(store.reaches - 3, 0) :]:
            self.take(candle)

    async def from_somewhere(*_: object) -> int:
        return 1

    monkeypatch.setattr(Streamed, "read", read)
    monkeypatch.setattr(loading, "lacking_from", from_somewhere)
    store = StoreInMemory(log)
    store.reaches = 10

    async def main() -> None:
        held = a_set(store)
        held.on_topic(can_be_read=True)
        page = PageOfSet(held, Key(BTC, "1m"), 12)
        held._to_load.clear()
        page.series.load(log[:10], log[0].open_time)
        for candle in log[10:]:
            held.take(candle, is_closed=True)
            await asyncio.sleep(0)
        await page.take()
        assert (len(page.bars), page.out.wants_snapshot, read_from) == (12, False, [])

        newcomer = PageOfSet(held, Key(BTC, "1m"), 55)
        await newcomer.take()
        assert len(newcomer.bars) < 55, "the store lacks some"
        assert list(held._to_load) == [page.series]
        held._to_load.clear()
        await held._load_all([page.series])
        assert newcomer.out.wants_snapshot
        await newcomer.take()
        assert [bar.version for bar in newcomer.bars.values()] == list(range(6, 61))
        assert (read_from, list(held._to_load)) == ([10], [])

    asyncio.run(main())
