"""Reading without asyncio: the same messages, one after the other, whoever is interrupted meanwhile."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from typing import TYPE_CHECKING, Any, Self

import pytest
from client_samples import BTC, ETH, a_candle, send

from ashi.client import Position, read_candles
from ashi.client.either_way import EitherWay
from ashi.contracts import BrokerError, ContractError, UsageError
from ashi.contracts.topics import CANDLES
from servers.free_ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from ashi.client import Candle
    from ashi.runtime.settings import Settings

BOUND_S = 30.0


class Numbers(EitherWay[int]):
    """Counts up to a limit."""

    def __init__(self, limit: int) -> None:
        self.numbers = self._count(limit)
        self.closed = 0
        self.connected = False

    @staticmethod
    async def _count(limit: int) -> AsyncIterator[int]:
        for number in range(limit):
            yield number

    async def __aenter__(self) -> Self:
        self.connected = True
        return self

    async def __anext__(self) -> int:
        self._check_way()
        return await anext(self.numbers)

    async def aclose(self) -> None:
        self.closed += 1

    def _is_connected(self) -> bool:
        return self.connected


class Slow(Numbers):
    """As that, but each number comes only when it is let go."""

    def __init__(self) -> None:
        super().__init__(0)
        self._at = 0
        self.go = threading.Event()
        self.asked = threading.Event()

    async def __anext__(self) -> int:
        self.asked.set()
        while not self.go.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.001)
        self.go.clear()
        self._at += 1
        return self._at


def client_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ashi-client"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert client_threads() == []


def test_what_is_read_ends_once_and_its_thread_with_it() -> None:
    numbers = Numbers(3)
    with numbers:
        assert list(numbers) == [0, 1, 2]
        assert client_threads() == []
        assert list(numbers) == []
    numbers.close()
    assert numbers.next_within(0) is None
    assert numbers.closed == 1


def test_who_leaves_the_loop_and_forgets_the_reader_leaves_no_thread() -> None:
    for number in Numbers(3):
        if number == 1:
            break
    assert client_threads() == []


def test_an_error_in_the_body_disconnects() -> None:
    numbers = Numbers(3)
    with pytest.raises(ZeroDivisionError), numbers:
        1 / next(numbers)
    assert numbers.closed == 1


def test_who_waits_for_a_time_or_is_interrupted_loses_nothing() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    slow = Slow()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with slow:
            assert slow.next_within(0.01) is None
            slow.asked.clear()
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                next(slow)
            assert slow.asked.is_set()
            slow.go.set()
            assert next(slow) == 1
            slow.go.set()
            assert slow.next_within(BOUND_S) == 2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_each_is_read_in_one_way() -> None:
    async def both(numbers: Numbers) -> None:
        async with numbers:
            assert await anext(numbers) == 0
            with pytest.raises(UsageError, match="by `async with` and `async for` already"):
                next(numbers)

    async def as_it_is_read_by_for(numbers: Numbers) -> None:
        with pytest.raises(UsageError, match="by `with` and `for` already"):
            await anext(numbers)

    asyncio.run(both(Numbers(3)))
    with Numbers(3) as numbers:
        assert next(numbers) == 0
        asyncio.run(as_it_is_read_by_for(numbers))
        assert next(numbers) == 1


def test_it_waits_within_a_running_loop_too_as_in_a_notebook() -> None:
    async def cell() -> list[int]:
        with Numbers(3) as numbers:
            return list(numbers)  # type: ignore[call-overload,no-any-return]

    assert asyncio.run(cell()) == [0, 1, 2]


def test_a_kafka_that_is_not_there_is_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ashi.runtime.kafka.connections.clients.START_TIMEOUT_S", 0.3)
    with pytest.raises(BrokerError), read_candles(f"127.0.0.1:{free_port()}"):
        pass
    reader = read_candles(f"127.0.0.1:{free_port()}")
    with pytest.raises(BrokerError):
        next(reader)
    assert next(reader, None) is None


def versions(candles: list[Candle]) -> list[int]:
    return [candle.version for candle in candles]


@pytest.mark.kafka
def test_candles_come_as_they_do_with_asyncio_and_are_gone_on_with(kafka_settings: Settings) -> None:
    def put(*messages: Any) -> None:
        asyncio.run(send(kafka_settings, *messages))

    async def with_asyncio(**options: Any) -> list[Candle]:
        return [candle async for candle in read_candles(kafka_settings, follow=False, **options)]

    put(a_candle(0, 5), a_candle(1, 6), a_candle(0, 5), a_candle(0, 9), a_candle(0, 3, ETH))
    for options in ({"symbols": [BTC]}, {"since": "now"}):
        with read_candles(kafka_settings, follow=False, **options) as candles:
            assert list(candles) == asyncio.run(with_asyncio(**options))

    with read_candles(kafka_settings, symbols=[BTC]) as candles:
        found = [next(candles)]
        between = candles.position.to_json()
        found_next = next(candles)
        assert versions([*found, found_next, next(candles)]) == [5, 6, 9]
        assert candles.next_within(0.2) is None
        put(a_candle(2, 11))
        found = [candles.next_within(BOUND_S)]  # type: ignore[list-item]
        assert versions(found) == [11]
        afterwards = candles.position
    assert candles.next_within(BOUND_S) is None
    again: dict[str, Any] = {"symbols": [BTC], "since": Position.from_json(between)}
    with read_candles(kafka_settings, follow=False, **again) as candles:
        rest = list(candles)
    assert rest == asyncio.run(with_asyncio(**again))
    assert rest[0] == found_next
    assert list(read_candles(kafka_settings, symbols=[BTC], since=afterwards, follow=False)) == []

    put((CANDLES, BTC, b"{}"))
    told: list[Any] = []
    assert len(list(read_candles(kafka_settings, symbols=[BTC], follow=False, on_unreadable=told.append))) == 4
    assert len(told) == 1
    with pytest.raises(ContractError, match="cannot be read"):
        list(read_candles(kafka_settings, symbols=[BTC], follow=False))
