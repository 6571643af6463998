"""A series that is silent holds up a strategy of several for 5 seconds, however much comes of the others."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from live_samples import a_candle

from ashi.client import Position
from ashi.contracts.topics import CANDLES
from ashi.runtime.health import Health
from ashi_series import Closed
from ashi_strategies import Strategy, StrategySeries, Target, long, plans_of
from ashi_strategies.live import worker
from ashi_strategies.live.desk import Desk
from ashi_strategies.live.instance import Instance
from ashi_strategies.live.worker import StrategyWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from ashi.contracts.candle import Candle
    from ashi.contracts.signal import Signal

SYMBOLS = ("sim:A", "sim:B")
PATIENCE_S = 0.3


class Together(Strategy):
    symbols_together = True
    startup_candles = 1

    def on_candle(self, candle: Candle, series: StrategySeries) -> Target | None:
        return long(price=Decimal(candle.close))


class Trickle:
    """Candles of one symbol, one after the other, without a rest; the other symbol has ended."""

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self._read = 0

    @staticmethod
    def is_complete(candle: Candle) -> bool:
        return False

    @property
    def ends(self) -> dict[int, int]:
        return {0: self._read + self._behind}

    async def more(self, wait_s: float) -> tuple[list[Candle], Position]:
        await asyncio.sleep(wait_s / 3)
        self._read += 1
        return [a_candle(2 + self._read, 1_000, symbol=SYMBOLS[0])], Position(CANDLES, {0: self._read})


class Here:
    """The strategy's thread, which is this one."""

    async def call(self, work: Callable[[], Any]) -> Any:
        return work()


def follow(monkeypatch: pytest.MonkeyPatch, feed: Trickle, *, seconds: float) -> list[Signal]:
    """The signals that are written while a feed trickles, until there are some."""
    monkeypatch.setattr(worker, "TICK_S", 0.05)
    monkeypatch.setattr("ashi_strategies.engine.PATIENCE_US", int(PATIENCE_S * 1_000_000))
    instance = Instance(plans_of(Together, SYMBOLS))
    desk = Desk(instance, 0, [])
    candles = [a_candle(minute, 1_000, symbol=symbol) for minute in range(3) for symbol in SYMBOLS]
    desk.go_over([Closed(candle) for candle in candles], time.time_ns() // 1_000)
    assert desk.collect()
    written: list[Signal] = []

    async def run() -> None:
        stopping = asyncio.Event()
        service: Any = SimpleNamespace(stopping=stopping, health=Health(), settings=None)
        strategy_worker = StrategyWorker(service, instance, None, None)

        async def write(writer: Any, signals: list[Signal], *place: Any) -> None:
            written.extend(signals)
            if signals:
                stopping.set()

        monkeypatch.setattr(strategy_worker, "_write", write)
        caught_up: Any = SimpleNamespace(feed=feed, began=0, redo_from=0, empty=())
        asyncio.get_running_loop().call_later(seconds, stopping.set)
        await strategy_worker._follow(caught_up, desk, Here(), None)  # type: ignore[arg-type]

    asyncio.run(run())
    return written


def test_a_silent_series_is_given_up_though_something_comes_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    signals = follow(monkeypatch, Trickle(behind=0), seconds=20)
    assert signals
    assert not any(signal.all_closed for signal in signals)


def test_what_came_meanwhile_does_not_put_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is always more in the topic than was read; what stood there when it was asked is read soon."""
    assert follow(monkeypatch, Trickle(behind=2), seconds=20)


def test_a_series_is_not_given_up_while_its_candle_may_be_among_what_is_still_to_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not follow(monkeypatch, Trickle(behind=1_000_000), seconds=PATIENCE_S * 4)
