"""What `follow` is told is wrong before it connects, and what waits for whoever asks slowly."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from ashi.client import Candle, Position
from ashi.contracts.errors import BrokerError, ContractError, NotPermittedError, StateError, UsageError
from ashi_series import Closed, InProgress, follow
from samples.candles import BTC, ETH, a_candle

if TYPE_CHECKING:
    from ashi_series import Event

NOWHERE = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"symbols": BTC}, "is not a collection"),
        ({"symbols": []}, "is not a collection"),
        ({"symbols": ["BTC_JPY"]}, "has no venue"),
        ({"timeframes": ["7m"]}, "does not divide a day"),
        ({"timeframes": "1m"}, r"write \['1m'\]"),
        ({"timeframes": []}, "without timeframes"),
        ({"limit": 0}, "at least 1"),
        ({"history": "mysql://x"}, "store 'mysql': known stores are sqlite, postgres, lake"),
        ({"history": "yesterday"}, "storage without a scheme"),
        ({"history": datetime(2026, 11, 1)}, "has no time zone"),  # noqa: DTZ001
        ({"history": Position("feed.gaps", {0: 1})}, "a position in topic feed.gaps"),
        ({"since": datetime(2026, 11, 1)}, "has no time zone"),  # noqa: DTZ001
        ({"since": 1_790_000_000}, "since 1790000000 is not a time in µs"),
        ({"since": True}, "since True is not a time"),
        ({"since": 1.79e15}, r"since 1790000000000000.0 is not a time: give µs"),
        ({"limit": 10.0}, "limit 10.0 is not a whole number"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_connected(wrong: dict[str, Any], told: str) -> None:
    right: dict[str, Any] = {"symbols": [BTC], "timeframes": ["1m"]}
    with pytest.raises((UsageError, ContractError), match=told):
        follow(NOWHERE, **right | wrong)


def test_series_that_are_not_followed_have_no_events() -> None:
    async def ask() -> Event:
        return await anext(follow(NOWHERE, symbols=[BTC], timeframes=["1m"]))

    with pytest.raises(UsageError, match="enter them with `async with`"):
        asyncio.run(ask())


class _Reader:
    position = Position("candles", {0: 7})


def test_who_asks_slowly_gets_each_candle_that_closed_and_of_those_in_progress_the_last_update() -> None:
    async def main() -> list[Event]:
        following = follow(NOWHERE, symbols=[BTC, ETH], timeframes=["1m"])
        following._reader = _Reader()  # type: ignore[assignment]
        for version in range(1, 5):
            following._put_update(a_candle(1, version))
            following._put(a_candle(version, version, ETH))
        following._put_update(a_candle(2, 9))
        events = [await anext(following) for _ in range(5)]
        assert following._updates == {}
        return events

    closed = [Closed(a_candle(version, version, ETH)) for version in range(1, 5)]
    assert asyncio.run(main()) == [InProgress(a_candle(2, 9)), *closed]


def test_a_position_is_that_of_what_has_been_handed_out_not_of_what_has_been_read() -> None:
    async def main() -> None:
        following = follow(NOWHERE, symbols=[BTC], timeframes=["1m"])
        following._reader = _Reader()  # type: ignore[assignment]
        following._position = following._taken_to = Position("candles", {0: 4})
        for version in range(1, 4):
            following._put(a_candle(version, version))
        for _ in range(3):
            await anext(following)
            assert following.position.offsets == {0: 4}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(following)
        assert following.position.offsets == {0: 7}

    asyncio.run(main())


def test_a_store_whose_library_is_not_installed_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == "deltalake" or "ashi_sinks.lake" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "deltalake", None)  # type: ignore[arg-type]  # as if it were not there

    async def main() -> None:
        async with follow(NOWHERE, symbols=[BTC], timeframes=["1m"], history=f"lake://{tmp_path}"):
            pass

    with pytest.raises(UsageError, match=r"pip install 'ashi-candles\[lake\]'"):
        asyncio.run(main())


def test_there_is_no_position_before_what_was_there_has_been_handed_out() -> None:
    given = Position("candles", {0: 1})

    async def main(history: Any, before: Position | None) -> None:
        following = follow(NOWHERE, symbols=[BTC], timeframes=["1m"], history=history, since=0)
        for window in range(3):  # as it does when it begins
            following._join.take(a_candle(window))
        following._begun = following._join.begin()
        following._reader = _Reader()  # type: ignore[assignment]
        following._position = following._taken_to = Position("candles", {0: 3})
        for window in range(3):
            if before is None:
                with pytest.raises(UsageError, match="no position yet"):
                    following.position  # noqa: B018
            else:
                assert following.position == before
            assert await anext(following) == Closed(a_candle(window))
        assert following.position.offsets == {0: 3}

    asyncio.run(main("beginning", None))
    asyncio.run(main(given, given))


class _Live:
    """A stand-in for readers of `candles.live`: each has some candles, and then an error or nothing."""

    def __init__(self, *readings: list[Candle | Exception]) -> None:
        self.readings = list(readings)
        self.starts: list[Any] = []
        self.is_last = asyncio.Event()

    def __call__(self, since: Any, **_: Any) -> Self:
        self.starts.append(since)
        self.reading = iter(self.readings.pop(0))
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        pass

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Candle:
        item = next(self.reading, None)
        if item is None:
            self.is_last.set()
            await asyncio.Event().wait()
        if isinstance(item, Exception):
            raise item
        assert item is not None
        return item


def test_where_candles_in_progress_cannot_be_read_on_the_rest_goes_on_and_they_begin_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ashi_series.following.LIVE_AGAIN_S", 0.0)
    live = _Live([a_candle(1, 1), StateError("made anew")], [BrokerError("no such topic")], [a_candle(1, 2)])

    async def main() -> None:
        following = follow(NOWHERE, symbols=[BTC], timeframes=["1m"])
        following._reader = _Reader()  # type: ignore[assignment]
        following._live = live  # type: ignore[assignment]
        reading = asyncio.create_task(following._follow_live("beginning"))
        async with asyncio.timeout(60):
            await live.is_last.wait()
            following._put(a_candle(0, 1))
            assert [await anext(following) for _ in range(2)] == [InProgress(a_candle(1, 2)), Closed(a_candle(0, 1))]
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    asyncio.run(main())
    assert live.starts == ["beginning", "now", "now"]
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == ["made anew", "no such topic"]


@pytest.mark.parametrize(
    ("history", "start"),
    [
        ("beginning", "beginning"),
        ("now", "now"),
        (datetime(2026, 11, 1, tzinfo=UTC), "now"),
        (1_790_000_000_000_000, "now"),
        (Position("candles", {0: 1}), "now"),
        ("store", "beginning"),
    ],
)
def test_a_window_that_closed_long_ago_is_in_progress_for_nobody(
    history: Any, start: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[Any] = []

    async def read_up(_: object, since: Any, take: object) -> Position:
        started.append(since)
        return Position("candles.live", {0: 7})

    monkeypatch.setattr("ashi_series.following._read_up", read_up)
    history = f"sqlite:///{tmp_path / 'candles.db'}" if history == "store" else history
    following = follow(NOWHERE, symbols=[BTC], timeframes=["1m"], history=history)
    begins = asyncio.run(following._read_live())
    assert (started or [begins]) == [start]


@pytest.mark.parametrize("error", [BrokerError("no such topic"), NotPermittedError("no right"), StateError("gone")])
def test_who_cannot_read_candles_in_progress_follows_without_them(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def read_up(*_: object) -> Position:
        raise error

    monkeypatch.setattr("ashi_series.following._read_up", read_up)
    following = follow(NOWHERE, symbols=[BTC], timeframes=["1m"])
    assert asyncio.run(following._read_live()) == "now"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(error) in caplog.text


def test_without_kafka_there_is_nothing_to_follow() -> None:
    async def main() -> None:
        async with follow(NOWHERE, symbols=[BTC], timeframes=["1m"]):
            pass

    with pytest.raises(BrokerError, match=NOWHERE):
        asyncio.run(asyncio.wait_for(main(), 60))
