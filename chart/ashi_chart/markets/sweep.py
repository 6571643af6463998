"""Reads the last day of each market from the store, one after the other, again when it is due; at a bounded rate."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from ashi.contracts.errors import StorageError
from ashi.runtime.logs import get_weather_logger
from ashi.runtime.wall_clock import now_us
from ashi_chart.candles.timeframes import timeframes_that_come

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ashi.contracts.candle import Candle
    from ashi.runtime.service import Service
    from ashi_chart.markets.day import Step
    from ashi_chart.markets.rows import Markets
    from ashi_sinks.protocol import CandleReader, SeriesSpan

_T = TypeVar("_T")

SHARE: Final = 0.2
"""Of the time, at most, a question of this reading is before the store: pages that people wait for come first."""
IDLE_S: Final = 1.0
AGAIN_S: Final = 10.0
"""So long after the store could not be read, or lagged too far behind, it is asked again."""
EVERY_S: Final = 3_600.0
"""All markets are read anew so often, whatever has come meanwhile."""

_weather = get_weather_logger(__name__)


class Asked(Protocol):
    """The store, as `ashi_chart.series.store` has it."""

    async def ask(self, question: Callable[[CandleReader], Awaitable[_T]]) -> _T:
        """The answer to a question. Raises StorageError."""

    async def spans(self) -> Sequence[SeriesSpan]:
        """Each series there is. Raises StorageError."""


class Sweep:
    """Goes through the markets for as long as the service runs."""

    def __init__(self, markets: Markets, store: Asked) -> None:
        self._markets = markets
        self._store = store
        self._known_s: float | None = None

    async def run(self, service: Service) -> None:
        """Read until the service stops, and wait while the store is away."""
        while not service.stopping.is_set():
            try:
                await self.find_markets()
                await service.pause(await self.read_next())
            except StorageError as error:
                _weather.warning("the last day of the markets cannot be read for now: %s", error)
                await service.pause(AGAIN_S)

    async def find_markets(self) -> None:
        """See which markets the store has, now and then. Raises StorageError."""
        now_s = time.monotonic()
        if self._known_s is None or now_s - self._known_s > EVERY_S:
            spans = await self._store.spans()
            self._markets.know({span.symbol for span in spans}, map(str, timeframes_that_come(spans)))
            self._markets.read_again()
            self._known_s = now_s

    async def read_next(self) -> float:
        """Read the day of the next market that is due, if one is; how long to wait before the next, seconds.

        Raises StorageError; the market is due again then.
        """
        step = self._markets.step
        symbol = None if step is None else self._markets.next_to_read()
        if step is None or symbol is None:
            return IDLE_S
        began_s = time.monotonic()
        try:
            candles = await self._store.ask(partial(_read_day, symbol, step))
        except StorageError:
            self._markets.read_again([symbol])
            raise
        if not self._markets.take_day(symbol, candles, step):
            self._markets.read_again([symbol])
            return AGAIN_S
        return (time.monotonic() - began_s) * (1 / SHARE - 1)


async def _read_day(symbol: str, step: Step, reader: CandleReader) -> list[Candle]:
    start = step.start(now_us()) - step.slot_us
    candles = [candle async for candle in reader.read(symbol, step.timeframe, start=start)]
    return candles or [candle async for candle in reader.read(symbol, step.timeframe, limit=1)]
