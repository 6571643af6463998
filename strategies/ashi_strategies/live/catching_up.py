"""The candles that a strategy begins with: out of topic `candles`, and out of a store where one is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ashi.contracts.candle import Candle
from ashi.contracts.timeframe import DAY_US, Timeframe
from ashi.runtime.logs import get_logger
from ashi.runtime.wall_clock import now_us
from ashi_series.join import APPENDED_BEFORE_US
from ashi_series.warm import WarmStore
from ashi_strategies.live.feed import TopicFeed
from ashi_strategies.live.history import History
from ashi_strategies.series_name import SeriesName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.client import Position
    from ashi.runtime.service import Service
    from ashi_strategies.live.beginning import Beginning
    from ashi_strategies.live.instance import Instance

FURTHER_BACK: Final = 8
"""So many times as far back the topic is read again where the candles were too few, as after a market has paused."""
FURTHEST_US: Final = 7 * DAY_US
"""The topic is read no further back for them, µs, than this and what the strategy needs: it may hold the candles of all
symbols of months. What is older has to come out of a store."""
POLL_S: Final = 0.5
LEAST_MARGIN_US: Final = 600_000_000

_log = get_logger(__name__)


@dataclass(slots=True)
class CaughtUp:
    """What was there when the strategy began.

    Attributes:
        feed: what comes after it; to be closed.
        candles: of each window the newest version, by (close time, timeframe, symbol).
        position: how far topic `candles` goes with them.
        began: the strategy gives signals of candles that closed after this, µs.
        redo_from: the first close time, µs, whose signals are not in the topic, or not as they would be given now.
        kept_from: the strategy is run from this close time on, µs. A candle that is corrected before it, and after
            `began`, asks for another beginning.
        empty: the series of which there was no candle at all.

    """

    feed: TopicFeed
    candles: Sequence[Candle]
    position: Position
    began: int
    redo_from: int
    kept_from: int
    empty: Sequence[SeriesName] = ()


async def catch_up(service: Service, instance: Instance, beginning: Beginning, store: str | None) -> CaughtUp:
    """Read what is there. What comes afterwards is in the feed.

    Raises StoppedError when told to stop meanwhile, BrokerError, StateError, and StorageError for a store that is away.
    """
    wanted = wanted_candles(instance)
    span_us = max(count * name.length_us for name, count in wanted.items())
    # Candles are corrected for minutes after they have closed: not each of these is to ask for another beginning.
    margin_us = max(span_us, LEAST_MARGIN_US)
    furthest_us = span_us + FURTHEST_US
    while True:
        since = max((beginning.redo_from or now_us()) - margin_us - span_us - APPENDED_BEFORE_US, 0)
        feed = TopicFeed(service.settings, instance.symbols, instance.timeframes, since)
        try:
            await service.unless_stopped(feed.open())
            history = History(wanted)
            position = await _read_topic(service, feed, history)
            if store is not None:
                first = None if beginning.redo_from is None else beginning.redo_from - margin_us
                await service.unless_stopped(_read_store(store, wanted, first, history))
        except BaseException:
            await feed.close()
            raise
        began, redo_from, kept_from = _places(beginning, history, margin_us)
        short = history.short_series(kept_from)
        if not short or since == 0 or span_us == furthest_us:
            break
        await feed.close()
        span_us = min(span_us * FURTHER_BACK, furthest_us)
    if short:
        _log.info(
            "there are fewer candles than the strategy needs before those that it is run over: it gives signals from "
            "where there are enough; what is too old for topic candles comes out of a store that --warm-from names",
            of=short,
            before_us=kept_from,
        )
    return CaughtUp(feed, history.in_order(), position, began, redo_from, kept_from, history.empty_series())


def _places(beginning: Beginning, history: History, margin_us: int) -> tuple[int, int, int]:
    """`began`, `redo_from` and `kept_from` of `CaughtUp`."""
    first = beginning.redo_from or history.newest_close_time()
    began = first - 1 if beginning.began is None else beginning.began
    redo_from = max(first, began + 1)
    return began, redo_from, max(redo_from - margin_us, began + 1)


async def _read_topic(service: Service, feed: TopicFeed, history: History) -> Position:
    while True:
        items, position = await service.unless_stopped(feed.more(POLL_S))
        history.add(item for item in items if isinstance(item, Candle))
        if feed.is_caught_up:
            return position


async def _read_store(store: str, wanted: dict[SeriesName, int], first: int | None, history: History) -> None:
    """All that closed at `first` (µs) or later, and so many candles before as are wanted."""
    since = None if first is None else first - 1
    async with WarmStore(store) as warm:
        for (symbol, timeframe), count in wanted.items():
            candles = warm.candles(symbol, Timeframe.parse(timeframe), count + 1, since)
            history.add([candle async for candle in candles])


def wanted_candles(instance: Instance) -> dict[SeriesName, int]:
    """Of each series, how many candles have to come before the first one that the strategy decides by."""
    wanted: dict[SeriesName, int] = {}
    for plan in instance.plans:
        for (symbol, timeframe), count in plan.history.items():
            name = SeriesName(symbol, str(timeframe))
            wanted[name] = max(wanted.get(name, 0), count)
    return wanted
