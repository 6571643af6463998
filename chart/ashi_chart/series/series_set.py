"""The series that somebody looks at: found, loaded, kept up, and forgotten when nobody does any more."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from ashi.contracts.candle import decode_candle, encode_candle
from ashi.contracts.errors import AshiError, StorageError, UsageError
from ashi.contracts.timeframe import Timeframe
from ashi.runtime.logs import get_logger, get_weather_logger
from ashi.runtime.metrics import chart as metrics
from ashi.runtime.spelling import did_you_mean
from ashi_chart.candles.rolling import Tail
from ashi_chart.candles.rollup import offered
from ashi_chart.candles.timeframes import timeframes_that_come
from ashi_chart.series.active import MOST_HELD, ActiveSeries, Key
from ashi_chart.series.catch_up import Source
from ashi_chart.series.history import History
from ashi_chart.series.loading import Loader
from ashi_sinks.joined import WithVenueCandles

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap
    from ashi.runtime.settings import Settings
    from ashi_chart.candles.coverage import Coverage
    from ashi_chart.candles.rollup import Rollup
    from ashi_chart.series.active import Watcher
    from ashi_chart.series.history import HistoryPage
    from ashi_chart.series.store import ChartStore
    from ashi_sinks.protocol import CandleReader, SeriesSpan

KEPT_S: Final = 300.0
"""A series that nobody looks at is forgotten after so long."""
MOST_SERIES: Final = 1_000
"""So many series are held at most: some 2 MB each."""
AGAIN_S: Final = 5.0
"""What could not be loaded is tried again so often."""
SOON_S: Final = 2.0
"""So long the store is waited for, when somebody wants to know what there is."""
LOADS_AT_ONCE: Final = 2
"""So many loads go on at a time; each takes all series that wait."""

_log = get_logger(__name__)
_weather = get_weather_logger(__name__)


class SeriesSet:
    """All series that somebody looks at. What the hub reads is given to it, and goes on to whom it concerns."""

    def __init__(
        self,
        settings: Settings,
        store: ChartStore,
        coverage: Callable[[str], Coverage],
        take_gap: Callable[[FeedGap], None],
    ) -> None:
        """Begin with none.

        `coverage`: what is known now of which times of a symbol lack trades; `take_gap`: is told of those
        that the store knows.
        """
        self._store = store
        self._coverage = coverage
        self._series: dict[Key, ActiveSeries] = {}
        self._of_symbol: defaultdict[str, list[ActiveSeries]] = defaultdict(list)
        self._of_source: defaultdict[Source, list[ActiveSeries]] = defaultdict(list)
        self._default = set(settings.timeframes)
        self._hinting = asyncio.Lock()
        # What came last, be it that nobody looks: where trades are rare, the next update may be an hour away. Encoded,
        # 400 bytes each.
        self._in_progress: dict[Source, bytes] = {}
        self._changed: set[ActiveSeries] = set()
        self._to_load: dict[ActiveSeries, float] = {}
        self._has_to_load = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reread: set[tuple[Key, int]] = set()
        self.loader = Loader(settings, store, take_gap)

    # What comes.

    def take(self, candle: Candle, *, is_closed: bool) -> None:
        """Take in a candle of any symbol. Those of one batch of records are told together, in a moment."""
        source = Source(candle.symbol, candle.timeframe)
        if not is_closed:
            self._in_progress[source] = encode_candle(candle)
        for series in self._of_source.get(source, ()):
            series.take(candle, is_closed=is_closed)
            if not self._changed:
                asyncio.get_running_loop().call_soon(self._flush)
            self._changed.add(series)

    def cover(self, symbol: str) -> None:
        """What is known of the times of a symbol has changed."""
        for series in self._of_symbol.get(symbol, ()):
            series.cover(self._coverage(symbol))

    def begin_anew(self, reason: str) -> None:
        """What was read of topic `candles` says nothing any more: load everything again."""
        for series in self._series.values():
            series.unload(reason)
            self._load_at(series, 0.0)

    def on_topic(self, *, can_be_read: bool) -> None:
        """Whether topic `candles` can be read; what could not be loaded for that is loaded now."""
        if not can_be_read:
            self.loader.can_read_topic.clear()
        elif not self.loader.can_read_topic.is_set():
            self.loader.can_read_topic.set()
            for series in self._to_load:
                self._load_at(series, 0.0)

    # What is asked.

    def of_symbol(self, symbol: str) -> Iterable[ActiveSeries]:
        """The series of a symbol that somebody looks at."""
        return self._of_symbol.get(symbol, ())

    async def timeframes(self, symbol: str | None = None) -> dict[str, Rollup]:
        """The timeframes that can be had, by name: of a symbol, or of any. Where the store does not say, those set."""
        spans = await self._spans()
        stored = {Timeframe.parse(name) for name in {each.timeframe for each in spans if symbol in {None, each.symbol}}}
        if not stored:
            return offered(self._default)
        coming = stored & timeframes_that_come(spans)  # of any symbol: where one rests, the last hour closes long after
        return offered(coming, gone=stored - coming)

    async def find(self, key: Key, known: Collection[str], *, with_hint: bool = True) -> Rollup:
        """How a series is made. `known`: the symbols that something was heard of.

        Raises UsageError where there is no such symbol or timeframe; `with_hint`: with what may be meant.
        """
        if key.symbol not in known:
            symbols = {span.symbol for span in await self._spans()}.union(known)
            if key.symbol not in symbols:
                hint = ""
                if with_hint:  # of ten thousand symbols it takes a second
                    async with self._hinting:
                        hint = await asyncio.to_thread(did_you_mean, key.symbol, symbols)
                raise UsageError(f"nothing is known of {key.symbol!r}{hint}")
        rollups = await self.timeframes(key.symbol)
        if key.timeframe not in rollups:
            raise UsageError(f"{key.symbol} cannot be had in {key.timeframe!r}: there is {', '.join(rollups)}")
        return rollups[key.timeframe]

    async def _spans(self) -> Sequence[SeriesSpan]:
        """What the store has, if it says so soon."""
        try:
            async with asyncio.timeout(SOON_S):
                return await self._store.all_spans()
        except (StorageError, TimeoutError):
            return ()

    def tail(self, key: Key, rollup: Rollup) -> Tail:
        """What is known of a series beside what the store has, as far as somebody looks at it or at one like it."""
        if (series := self._series.get(key)) is not None:
            return series.tail
        for series in self._of_source.get(Source(key.symbol, str(rollup.source)), ()):
            tail = series.tail
            return Tail(tail.closed, tail.in_progress)
        return Tail()

    def watch(self, key: Key, rollup: Rollup, watcher: Watcher) -> ActiveSeries:
        """The series, which tells `watcher` from now on. Raises UsageError where too many are held."""
        series = self._series.get(key)
        if series is None:
            series = self._make(key, rollup)
        series.watchers.add(watcher)
        return series

    def leave(self, series: ActiveSeries, watcher: Watcher) -> None:
        """Tell it no more."""
        series.watchers.discard(watcher)
        if not series.watchers:
            series.left_s = time.monotonic()

    async def newest(self, series: ActiveSeries, count: int) -> tuple[list[bytes], bool]:
        """The newest bars of a loaded series as they are sent, and whether there are older ones.

        There may be fewer than are wanted, and more: those that the store gives at once, or that are held where it
        gives none.
        """
        while (found := series.newest(count)) is None:
            async with series.reading:
                if series.newest(count) is not None:
                    continue
                loads, old_changes = series.loads, series.old_changes
                held, first = series.held
                bars, _ = series.newest(held) or ([], True)
                ask = partial(self._page, series, first, count - held)
                try:
                    page = await self._store.ask(ask)
                except StorageError as error:
                    _weather.warning("older bars cannot be read: %s", error)
                    return series.newest(series.held[0]) or ([], True)
                if (loads, old_changes) != (series.loads, series.old_changes):
                    continue  # what was read may lack what was told meanwhile
                if held + len(page.rolled) > MOST_HELD or series.held[1] != first:
                    # As they were: what has changed of them since is told after these.
                    return [*series.encode(page.rolled), *bars], page.more
                series.prepend(page.rolled, more=page.more)
                return series.newest(min(count, series.held[0])) or ([], page.more)
        return found

    async def _page(self, series: ActiveSeries, before: int | None, limit: int, reader: CandleReader) -> HistoryPage:
        """Bars of the store that are older than those held."""
        page = await History(WithVenueCandles(reader)).page(
            series.key.symbol, series.rollup, before, limit, series.tail
        )
        if page.lacking is not None:
            self._load_at(series, 0.0)
        return page

    @staticmethod
    async def _is_stored(series: ActiveSeries, reader: CandleReader) -> bool:
        """Whether the store has the parts that are not held any more. If it lags behind, the topic has to be read."""
        until = series.tail.let_go_until
        newest = [part async for part in reader.read(series.key.symbol, str(series.rollup.source), limit=1)]
        return until < 0 or (bool(newest) and newest[0].close_time >= until)

    # How it is done.

    async def run(self) -> None:
        """Load what is to be loaded, and forget what nobody looks at, until cancelled."""
        turns = asyncio.Semaphore(LOADS_AT_ONCE)
        try:
            while True:
                await turns.acquire()
                await self._wait_for_work()
                now_s = time.monotonic()
                due = [series for series, at_s in self._to_load.items() if at_s <= now_s]
                for series in due:
                    del self._to_load[series]
                self._start(self._load_all(due), turns.release)
                self._forget(now_s)
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _wait_for_work(self) -> None:
        while not any(at_s <= time.monotonic() for at_s in self._to_load.values()):
            self._has_to_load.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._has_to_load.wait()
            self._forget(time.monotonic())

    def _start(self, work: Coroutine[None, None, None], then: Callable[[], None] = lambda: None) -> None:
        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            then()
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.error("failed unexpectedly; please report this", exc_info=error)

        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(done)

    def _make(self, key: Key, rollup: Rollup) -> ActiveSeries:
        if len(self._series) >= MOST_SERIES:
            idle = [series for series in self._series.values() if not series.watchers]
            if not idle:
                raise UsageError(f"{len(self._series)} series are being looked at, and no more can be held")
            self._drop(min(idle, key=lambda series: series.left_s))
        series = self._series[key] = ActiveSeries(key, rollup, self._coverage(key.symbol))
        source = Source(key.symbol, str(rollup.source))
        self._of_symbol[key.symbol].append(series)
        self._of_source[source].append(series)
        if (in_progress := self._in_progress.get(source)) is not None:
            series.take(decode_candle(in_progress), is_closed=False)  # no news where it has closed since
        metrics.chart_series.set(len(self._series))
        self._load_at(series, 0.0)
        return series

    def _drop(self, series: ActiveSeries) -> None:
        del self._series[series.key]
        for index, name in (
            (self._of_symbol, series.key.symbol),
            (self._of_source, Source(series.key.symbol, str(series.rollup.source))),
        ):
            index[name].remove(series)  # type: ignore[index]
            if not index[name]:  # type: ignore[index]
                del index[name]  # type: ignore[arg-type]
        self._to_load.pop(series, None)
        metrics.chart_series.set(len(self._series))

    def _forget(self, now_s: float) -> None:
        for series in [each for each in self._series.values() if not each.watchers and now_s - each.left_s > KEPT_S]:
            self._drop(series)

    def _load_at(self, series: ActiveSeries, at_s: float) -> None:
        self._to_load[series] = at_s
        self._has_to_load.set()

    def _flush(self) -> None:
        changed, self._changed = self._changed, set()
        for series in changed:
            series.flush()
            self._reread_what_is_old(series)

    def _reread_what_is_old(self, series: ActiveSeries) -> None:
        for window in series.reread:
            if (series.key, window) not in self._reread:
                self._reread.add((series.key, window))
                self._start(self._rebuild(series, window), partial(self._reread.discard, (series.key, window)))

    async def _rebuild(self, series: ActiveSeries, window: int) -> None:
        """Make a window anew of which a part was corrected that is not held any more."""
        while series.watchers and window in series.reread:
            try:
                parts, is_whole = await self._store.ask(partial(self._window, series, window))
            except StorageError as error:
                _weather.warning("a bar that was corrected cannot be made anew, trying again: %s", error)
                await asyncio.sleep(AGAIN_S)
                continue
            series.rebuild(window, parts, is_whole=is_whole)
            series.flush()

    async def _window(self, series: ActiveSeries, window: int, reader: CandleReader) -> tuple[list[Candle], bool]:
        if not await self._is_stored(series, reader):
            self._load_at(series, 0.0)
            raise StorageError("it has not come as far as what was held here; reading the topic")
        return await History(WithVenueCandles(reader)).window(series.key.symbol, series.rollup, window)

    async def _load_all(self, wanted: Sequence[ActiveSeries]) -> None:
        """Load some series, and see to it that what is lacking is tried again."""
        began_s = time.monotonic()
        try:
            trouble = await self.loader.load(wanted)
        except AshiError as error:
            trouble = str(error)
        except Exception as error:
            trouble = f"failed unexpectedly: {error!r}"
            _log.exception("series cannot be loaded; please report this")
        if trouble is None:
            metrics.chart_load_seconds.observe(time.monotonic() - began_s)
            return
        _weather.warning("series cannot be loaded as they should be, trying again: %s", trouble)
        for series in wanted:
            if self._series.get(series.key) is series:
                if not series.is_loaded:
                    series.unload(trouble)
                self._load_at(series, time.monotonic() + AGAIN_S)
