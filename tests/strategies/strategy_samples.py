"""Strategies and candles for the tests, and the oracle: what a strategy says, by the rule, in plain lists."""

from __future__ import annotations

import zlib
from collections import deque
from decimal import Decimal
from typing import Any, ClassVar

from ashi.contracts.candle import Candle
from ashi.contracts.signal import Signal
from ashi.contracts.timeframe import Timeframe
from ashi_strategies import Plan, Strategy, Target, flat, long, plans_of, short
from samples.candles import BTC
from samples.candles import a_candle as candle_of_window


def a_candle(window: int = 0, close: Any = 100, version: int = 1, symbol: str = BTC, timeframe: str = "1m") -> Candle:
    """The candle of the window with that number, counted from the start of a day."""
    return candle_of_window(window, version, symbol, timeframe, price=str(close))


def digest(*values: Any) -> int:
    """A number that is another one for other values."""
    return zlib.crc32(repr(values).encode())


def said(number: int) -> Target | None:
    """What a strategy says by a digest: any target, or nothing."""
    return (long, short, flat, lambda reason: None)[number % 4](str(number))


class Views(Strategy):
    """Says something else whenever anything differs in what it is handed, and keeps nothing."""

    symbols_together = True

    length: int = 2

    @property
    def startup_candles(self) -> int:
        return self.length

    def on_candle(self, candle: Candle, series: Any) -> Target | None:
        assert series[-1] == candle
        return said(digest(candle.symbol, candle.timeframe, self.seen(series)))

    def seen(self, series: Any) -> list[list[tuple[int, str]]]:
        """All that it is handed, of all its series."""
        return [
            [(candle.open_time, str(candle.close)) for candle in series.of(symbol, timeframe)]
            for symbol in self.symbols
            for timeframe in self.timeframes
        ]


class Memory(Views):
    """Keeps what it was handed with as many of the last candles of each series as it declares, and says by that."""

    def __post_init__(self) -> None:
        self.kept: dict[tuple[str, str], deque[int]] = {
            (symbol, timeframe): deque(maxlen=self.length) for symbol in self.symbols for timeframe in self.timeframes
        }

    def on_candle(self, candle: Candle, series: Any) -> Target | None:
        before = {key: list(kept) for key, kept in self.kept.items()}
        self.kept[candle.symbol, candle.timeframe].append(digest(self.seen(series)))
        return said(digest(candle.symbol, candle.timeframe, self.seen(series), before))


class Forever(Views):
    """Breaks the rule: it remembers for longer than it declares."""

    def __post_init__(self) -> None:
        self.count = 0

    def on_candle(self, candle: Candle, series: Any) -> Target | None:
        self.count += 1
        return long() if self.count % 7 == 0 else None


class Prophet(Views):
    """Looks ahead the only way there is: its instances share what they have seen, so that the second knows more."""

    shared: ClassVar[dict[int, Decimal]] = {}

    def on_candle(self, candle: Candle, series: Any) -> Target | None:
        self.shared[candle.open_time] = candle.close
        following = self.shared.get(candle.close_time)
        return long() if following is not None and following > candle.close else None


def a_plan(strategy: type[Strategy] = Views, symbols: Any = (BTC,), timeframes: Any = (), **parameters: Any) -> Plan:
    if len(timeframes) > 1:  # a class says how many it takes
        strategy = type(strategy.__name__, (strategy,), {"timeframes": tuple(timeframes)})
    (plan,) = plans_of(strategy, symbols, timeframes, parameters)
    return plan


class _List(list[Candle]):
    """A series of the oracle."""

    def __init__(self, candles: list[Candle], others: dict[tuple[str, str], list[Candle]]) -> None:
        super().__init__(candles)
        self._others = others

    def of(self, symbol: str, timeframe: str) -> list[Candle]:
        return self._others[symbol, timeframe]


Content = tuple[Any, ...]


def oracle(plan: Plan, candles: list[Candle]) -> dict[tuple[str, str, int], Content]:
    """What is signalled of each (symbol, timeframe, close time): one instance goes once through the final candles."""
    names = [(symbol, str(timeframe)) for symbol, timeframe in plan.startup]
    counts = {(symbol, str(timeframe)): count for (symbol, timeframe), count in plan.startup.items()}
    in_order = sorted(candles, key=lambda candle: candle.close_time)
    strategy: Any = plan.make()
    handed = dict.fromkeys(names, 0)
    found = {}
    for time in sorted({candle.close_time for candle in in_order}):
        views = {
            name: [one for one in in_order if (one.symbol, one.timeframe) == name and one.close_time <= time][-count:]
            for name, count in counts.items()
        }
        if any(len(views[name]) < counts[name] for name in names):
            continue
        counts_now = all(handed[name] >= counts[name] for name in names)
        here = [name for name in names if views[name][-1].close_time == time]
        due = [name for name in names if time % Timeframe.parse(name[1]).length_us == 0]
        for name in here:
            candle = views[name][-1]
            target = strategy.on_candle(candle, _List(views[name], views))
            handed[name] += 1
            if counts_now and target is not None:
                found[(*name, time)] = (
                    candle.version, target.target, target.strength, candle.close, target.reason, target.labels,
                    here == due,
                )  # fmt: skip
    return found


def content(signal: Signal) -> Content:
    """What the oracle says of a signal."""
    return (
        signal.version, signal.target, signal.strength, signal.price, signal.reason, signal.labels, signal.all_closed,
    )  # fmt: skip
