"""The series of a running Ashi: what was there, and then each event as it comes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeAlias, cast

from ashi.client import (
    Candle,
    FeedGap,
    FeedStatus,
    Position,
    Settings,
    kafka_settings,
    read_candles,
    read_feed_gaps,
    read_feed_status,
    read_live_candles,
)
from ashi.client.either_way import EitherWay
from ashi.contracts.errors import BrokerError, BrokerUnreachableError, StateError, UsageError
from ashi.contracts.trade import EARLIEST_US, LATEST_US
from ashi.runtime.library_logs import WEATHER
from ashi_series.join import Join
from ashi_series.series import LIMIT
from ashi_series.store import OhlcvStore
from ashi_series.warm import WarmStore

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from ashi.client import Reader, Since, UnreadableRecord
    from ashi_series.events import Event
    from ashi_series.script_values import AnyTimeframe

MOST_WAITING: Final = 10_000
"""So many messages are read ahead at most; then the reading waits until they have been asked for."""
LIVE_AGAIN_S: Final = 10.0
"""So long after `candles.live` could not be read it is tried again."""

# Not structlog's: in a script that has configured none it would write to stdout.
_log = logging.getLogger(f"{WEATHER}.{__name__}")


class _Update(NamedTuple):
    """Stands for the last update of a candle in progress that has come when its turn comes."""

    symbol: str
    timeframe: str


_Item: TypeAlias = Candle | FeedGap | FeedStatus | _Update


def follow(
    kafka: Settings | str | None = None,
    *,
    symbols: Collection[str],
    timeframes: Collection[AnyTimeframe],
    history: Since | str = "beginning",
    since: datetime | int | None = None,
    limit: int = LIMIT,
    in_progress: bool = True,
) -> Following:
    """Follow the series of some symbols in some timeframes.

    >>> async with follow("kafka:9092", symbols=["bitflyer:BTC_JPY"], timeframes=["1m"]) as following:
    ...     async for event in following:
    ...         ...

    Args:
        kafka: as of `ashi.client.read_candles`.
        symbols: `venue:MARKET`.
        timeframes: `1m`, seconds or Timeframe.
        history: where the candles are that were there before. A place in topic `candles` from which on it is read (as
            `since` of `read_candles`; the beginning reads all that Kafka keeps), or the URL of a store (`sqlite:////…`,
            `postgresql://…`, `lake:…`), whose newest candles are taken; what it lacks is read from the topic.
        since: tell of the candles, too, that were there and closed after this time (µs, or a datetime with a zone): as
            they are now, in order, before what comes; 0: of all of them. None: tell of what comes only.
        limit: so many closed candles are kept of each series.
        in_progress: whether candles in progress are wanted, from topic `candles.live`.

    Raises UsageError and ContractError for wrong arguments. What entering it and iterating raise says `Following`.

    """
    if kafka is None:
        settings = Settings.from_environment()
    else:
        settings = kafka_settings(kafka) if isinstance(kafka, str) else kafka
    store = OhlcvStore(timeframes, limit=limit)
    return Following(settings, store, symbols, history, _time_us(since), in_progress=in_progress)


class Following(EitherWay["Event"]):
    """Made by `follow`; within `async with` the series are filled, and go on with each event that is asked for.

    Outside of asyncio the same is done by `with`, `for` and `next_within`.
    When an event is handed out its series is as of that event, and not further. To stop waiting (`asyncio.timeout`)
    loses none. Who asks slowly gets all that closed or was corrected, and of what is in progress the last update.

    Nothing depends on candles in progress: where `candles.live` cannot be read (there is no such topic, or no right to
    read it; its records are gone or others; one holds no candle), that is a warning in the log (`logging`), and there
    are none until it can be read again.

    Raises, as the readers of `ashi.client` do, BrokerError at the start, StateError when records that were still to be
    read are gone or a topic is another one now, and ContractError for a record that holds no message; StorageError when
    the store of `history` cannot be read.

    Attributes:
        store: the series, and which of their candles are complete.

    """

    def __init__(
        self,
        settings: Settings,
        store: OhlcvStore,
        symbols: Collection[str],
        history: Since | str,
        since: int | None,
        *,
        in_progress: bool,
    ) -> None:
        names = [str(timeframe) for timeframe in store.timeframes]
        # What comes again is told by the series, which know the version of each candle.
        self._candles = partial(read_candles, settings, symbols=symbols, timeframes=names, remember=1)
        self._live = partial(
            read_live_candles, settings, symbols=symbols, timeframes=names, remember=1, on_unreadable=_warn_of
        )
        self._gaps = partial(read_feed_gaps, settings, symbols=symbols, remember=1)
        self._statuses = partial(read_feed_status, settings, symbols=symbols)
        self.store = store
        self._settings = settings
        self._symbols = list(symbols)
        self._warm = WarmStore(history) if isinstance(history, str) and history not in {"beginning", "now"} else None
        self._history = cast("Since", history)  # unless it is warm
        self._candles(since="now" if self._warm else self._history)  # what is wrong is told here and now
        self._since = since
        self._in_progress = in_progress
        self._join = Join(store, since)
        self._begun: Iterator[Event] = iter(())
        self._readers = AsyncExitStack()
        self._reading: list[asyncio.Task[None]] = []
        self._waiting: deque[_Item] = deque()
        self._taken: deque[_Item] = deque()
        self._updates: dict[_Update, Candle] = {}
        self._has_some, self._has_room = asyncio.Event(), asyncio.Event()
        self._failure: Exception | None = None
        self._is_closed = False
        self._reader: Reader[Candle] | None = None
        self._position: Position | None = None
        self._taken_to: Position | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            await self.aclose()
            raise
        return self

    def _is_connected(self) -> bool:
        return self._reader is not None

    async def aclose(self) -> None:
        """Disconnect. May be called at any time, and again; the iteration is over then."""
        self._is_closed = True
        self._has_some.set()
        reading, self._reading = self._reading, []
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await self._readers.aclose()

    @property
    def position(self) -> Position:
        """A place in topic `candles`: all that stands before it has been handed out, and perhaps some that follows.

        Before all has been handed out that was there and closed after `since` there is no such place, but for the
        Position that `history` was: then it raises UsageError, as before it has begun.
        """
        if self._position is None:
            raise UsageError("the series are not followed yet: enter them with `async with`, or `with`")
        if self._join.is_begun:
            return self._position
        if isinstance(self._history, Position):
            return self._history
        raise UsageError(
            "there is no position yet, as not all candles that closed after `since` have been handed out: ask for them "
            "first, or go on by the close time of the last one"
        )

    async def __anext__(self) -> Event:
        event = next(self._begun, None)
        while event is None:
            if self._taken:
                event = self._deal_with(self._taken.popleft())
            else:
                self._position = self._taken_to
                await self._take_more()
        return event

    def _deal_with(self, item: _Item) -> Event | None:
        match item:
            case Candle():
                return self._join.stream(item)
            case _Update():
                return self.store.update(self._updates.pop(item))
            case _:
                return self.store.take(item)

    async def _take_more(self) -> None:
        """Wait until something has come, and take it all."""
        self._check_way()
        while not self._waiting and not self._is_closed:
            if self._failure is not None:
                failure = self._failure
                await self.aclose()
                raise failure
            if self._reader is None:
                raise UsageError("the series are not followed yet: enter them with `async with`, or `with`")
            self._has_some.clear()
            await self._has_some.wait()
        if self._is_closed or self._reader is None:
            raise StopAsyncIteration
        # The candles that the reader has handed out are all in what is taken: nothing is awaited in between.
        self._taken, self._waiting = self._waiting, deque()
        self._taken_to = self._reader.position
        self._has_room.set()

    async def _begin(self) -> None:
        """Read what is there, of all topics at once; then go on reading where that ended."""
        from_candles, (from_statuses, from_gaps), from_live = await asyncio.gather(
            self._read_history(), self._read_said(), self._read_live()
        )
        self._begun = self._join.begin()
        self._position = self._taken_to = from_candles
        self._reader = self._candles(since=from_candles)
        await self._go_on(self._reader, self._put)
        await self._go_on(self._gaps(since=from_gaps), self._put)
        await self._go_on(self._statuses(since=from_statuses), self._put)
        if self._in_progress:
            self._reading.append(asyncio.create_task(self._follow_live(from_live)))

    async def _read_history(self) -> Position:
        start: Since = self._history
        if self._warm is not None:
            async with self._warm as warm:
                begins_at = await warm.read_from(self._settings, self._symbols)
                start = "beginning" if begins_at is None else begins_at
                for symbol in self._symbols:
                    for timeframe in self.store.timeframes:
                        async for candle in warm.candles(symbol, timeframe, self.store.limit, self._since):
                            self._join.take(candle)
        return await _read_up(self._candles, start, self._join.take)

    async def _read_said(self) -> tuple[Position, Position]:
        # A status rests on the gaps that were told before it, so the gaps are read after it.
        statuses = await _read_up(self._statuses, "beginning", self.store.take)
        return statuses, await _read_up(self._gaps, "beginning", self.store.take)

    async def _read_live(self) -> Since:
        # The last update of a market may be of a window that closed long ago. Where the history does not hold the last
        # candle of each market that cannot be told, and only what comes is in progress for sure.
        if not self._in_progress or (self._warm is None and self._history != "beginning"):
            return "now"
        try:
            return await _read_up(self._live, "beginning", self._put_update)
        except BrokerUnreachableError:
            raise
        except (BrokerError, StateError) as error:
            _log.warning("candles in progress cannot be read for now: %s", error)
            return "now"

    async def _follow_live(self, start: Since) -> None:
        while True:
            try:
                async with self._live(since=start) as reader:
                    await self._pass_on(reader, self._put_update)
            except (BrokerError, StateError) as error:
                _log.warning("candles in progress cannot be read for now: %s", error)
            except Exception as error:
                self._fail(error)
                return
            start = "now"
            await asyncio.sleep(LIVE_AGAIN_S)

    def _put(self, message: Candle | FeedGap | FeedStatus) -> None:
        self._waiting.append(message)

    def _put_update(self, candle: Candle) -> None:
        place = _Update(candle.symbol, candle.timeframe)
        if place not in self._updates:
            self._waiting.append(place)
        self._updates[place] = candle

    async def _go_on(self, reader: Reader[Any], put: Callable[[Any], None]) -> None:
        await self._readers.enter_async_context(reader)
        self._reading.append(asyncio.create_task(self._follow(reader, put)))

    async def _follow(self, reader: Reader[Any], put: Callable[[Any], None]) -> None:
        try:
            await self._pass_on(reader, put)
        except Exception as error:
            self._fail(error)

    async def _pass_on(self, reader: Reader[Any], put: Callable[[Any], None]) -> None:
        async for message in reader:
            put(message)
            self._has_some.set()
            if len(self._waiting) >= MOST_WAITING:
                self._has_room.clear()
                await self._has_room.wait()

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._has_some.set()


async def _read_up(make: Callable[..., Reader[Any]], start: Since, take: Callable[[Any], object]) -> Position:
    """Take in what is in a topic from a place on; where it ended."""
    async with make(since=start, follow=False) as reader:
        async for message in reader:
            take(message)
        return reader.position


def _warn_of(record: UnreadableRecord) -> None:
    _log.warning("the candle in progress %s cannot be read and is passed over: %s", record.place, record.error)


def _time_us(since: datetime | int | None) -> int | None:
    if isinstance(since, datetime):
        if since.utcoffset() is None:
            raise UsageError(f"since {since} has no time zone: write datetime(..., tzinfo=UTC)")
        return int(since.timestamp() * 1_000_000)
    if since is None:
        return None
    if isinstance(since, bool) or not isinstance(since, Integral):
        raise UsageError(f"since {since!r} is not a time: give µs since the epoch or a datetime with a zone")
    if since != 0 and not EARLIEST_US <= since <= LATEST_US:
        raise UsageError(
            f"since {since} is not a time in µs since the epoch, between 2001 and 2255, nor 0 for all candles"
        )
    return int(since)
