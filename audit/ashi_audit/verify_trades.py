"""`ashi verify --trades`: every stored candle against its trades, counted again as a batch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import UsageError
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.topics import CANDLES, TRADES, TRADES_LATE
from ashi.runtime.kafka.cluster.offsets import committed_offsets, end_offsets, left_to_read
from ashi.runtime.kafka.cluster.topics import partition_counts, require_topics
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.retry import Backoff, retry
from ashi.runtime.spelling import did_you_mean
from ashi.runtime.words import counted
from ashi_audit.part_recount import PartRecount
from ashi_audit.report import NONE, WHOLE, Difference, Report
from ashi_audit.request import check_request, not_compared
from ashi_audit.rules import rules_of_epoch, rules_of_settings
from ashi_audit.series_check import SeriesCheck
from ashi_audit.sources.choice import open_source
from ashi_audit.venue_candles import note_venue_candles

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence
    from typing import TypeAlias

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap
    from ashi.runtime.settings import Settings
    from ashi_audit.recount import LateTrade, SeriesRange
    from ashi_audit.request import VerifyOptions
    from ashi_audit.rules import CandleRules
    from ashi_audit.sources.base import TradeSource
    from ashi_sinks.protocol import CandleReader

    Excuse: TypeAlias = Callable[[str, int, int, Sequence[FeedGap]], str | None]

SINK_PATIENCE_S: Final = 10.0
"""How long a sink that stores nothing more is waited for."""
_LOOK_S: Final = 0.2


async def verify_trades(settings: Settings, options: VerifyOptions) -> int:
    """Compare and print; the exit status: 0 when all is equal or explained, else 1.

    Raises UsageError when there is nothing to compare, NotComparedError when something is out of reach.
    """
    from rich.console import Console

    from ashi_sinks.registry import open_reader

    check_request(options.symbols, options.start, options.end)
    report = Report(Console(), expected="recomputed", as_json=options.json)
    with not_compared():
        async with open_reader(options.storage) as reader:
            check = await _prepare(settings, options, reader, report)
            await note_venue_candles(reader, options, report)
            await check.run()
    return report.finish()


async def _prepare(settings: Settings, options: VerifyOptions, reader: CandleReader, report: Report) -> Verification:
    if options.recordings:
        from ashi_audit.sources.recordings import RecordedTrades
        from ashi_ingest.recording.sequence import check_recordings

        check_recordings(options.recordings)
        rules = rules_of_settings(settings)
        timeframes = _choose(settings.timeframes, options.timeframes)
        recorded = RecordedTrades(options.recordings, rules, options.symbols, report.note)
        return Verification(
            options,
            reader,
            report,
            source=recorded,
            rules=rules,
            timeframes=timeframes,
            excuse=recorded.excuse,
        )
    from ashi_aggregate.epoch import require_epoch
    from ashi_aggregate.loads import JoinedCandles, read_loads

    await require_topics(settings, [TRADES, TRADES_LATE, CANDLES])
    epoch = await require_epoch(settings)
    partitions = (await partition_counts(settings))[TRADES]
    timeframes = _choose([Timeframe.parse(name) for name in epoch.timeframes], options.timeframes)
    source = await open_source(
        settings,
        options.lake,
        epoch=epoch,
        partitions=partitions,
        symbols=options.symbols,
        start=options.start,
        end=options.end,
        on_note=report.note,
    )
    await _await_sink(settings, options.storage, report)
    return Verification(
        options,
        reader,
        report,
        source=source,
        rules=rules_of_epoch(epoch),
        timeframes=timeframes,
        excuse=None,
        joined=JoinedCandles(await read_loads(settings)),
    )


def _choose(there: Sequence[Timeframe], wanted: Sequence[str]) -> list[Timeframe]:
    names = [str(timeframe) for timeframe in there]
    for name in wanted:
        if name not in names:
            raise UsageError(f"no candles of {name} are made: there are {', '.join(names)}{did_you_mean(name, names)}")
    return [timeframe for timeframe in there if not wanted or str(timeframe) in wanted]


class _NothingStoredError(Exception):
    """The sink has stored nothing since it was looked at."""


async def _await_sink(settings: Settings, storage: str, report: Report) -> None:
    """Let the sink store what has been published so far. What it does not store in time is noted."""
    from ashi_sinks.registry import store_name
    from ashi_sinks.worker import sink_group

    group = settings.sink_group or sink_group(store_name(storage))
    group_in_kafka, candles = kafka_name(settings, group), kafka_name(settings, CANDLES)
    ends = await end_offsets(settings, CANDLES)

    async def left() -> int:
        stored = await committed_offsets(settings, group, CANDLES)
        if all(stored.get(number, 0) >= end for number, end in ends.items()):
            return 0
        return sum((await left_to_read(settings, CANDLES, stored, ends)).values()) if stored else 0

    async def less_than_before() -> int:
        if (now_left := await left()) == messages:
            raise _NothingStoredError
        return now_left

    messages = await left()
    if messages:
        print(
            f"waiting for group {group_in_kafka}, which has {messages:,} messages of topic {candles} to store",
            file=sys.stderr,
        )
    while messages:
        try:
            messages = await retry(
                less_than_before,
                least_wait_s=lambda error: _LOOK_S if isinstance(error, _NothingStoredError) else None,
                patience_s=SINK_PATIENCE_S,
                backoff=Backoff(0.0, 0.0),
            )
        except _NothingStoredError:
            report.note(
                f"group {group_in_kafka} has {messages:,} messages of topic {candles} still to store: "
                "is its worker running?"
            )
            return


class Verification:
    """One run over all trades of a source."""

    def __init__(
        self,
        options: VerifyOptions,
        reader: CandleReader,
        report: Report,
        *,
        source: TradeSource,
        rules: CandleRules,
        timeframes: Sequence[Timeframe],
        excuse: Excuse | None,
        joined: Container[Candle] = (),
    ) -> None:
        self._options = options
        self._reader = reader
        self._report = report
        self._source = source
        self._rules = rules
        self._timeframes = timeframes
        self._excuse = excuse
        self._joined = joined
        self._gaps: dict[str, list[FeedGap]] = {}
        self._checks: dict[tuple[str, str], SeriesCheck] = {}

    async def run(self) -> None:
        """Compare all series. Raises UsageError when there is nothing to compare."""
        options = self._options
        recount = PartRecount(
            self._rules, self._timeframes, start=options.start, end=options.end, symbols=options.symbols
        )
        async for part in self._source.parts():
            async for windows, clock in recount.ranges(part):
                await self._compare(windows._replace(until=min(windows.until, options.end)), clock)
        self._report_unreported(recount.unreported)
        stored = [(span.symbol, span.timeframe) for span in await self._reader.spans()]
        known = recount.seen | {symbol for symbol, _ in stored}
        unknown = [symbol for symbol in options.symbols if symbol not in known]
        if unknown:
            raise UsageError(
                f"there are no candles of {unknown[0]} in the store, and no trades of it in what was read"
                + (did_you_mean(unknown[0], known) or ": correct --symbol")
            )
        counts = self._report.counts
        for check in self._checks.values():
            counts["compared"] += check.compared
            counts["open"] += check.open
        if not counts["compared"]:
            nothing = "there is nothing to compare: no whole window of these symbols, timeframes and times has trades"
            if counts["open"]:
                nothing = f"nothing could be compared: {counted(counts['open'], 'window')} still open or not final"
            # What was noted may well be the reason.
            raise UsageError(". ".join([nothing, *self._report.notes]))
        self._note_others(stored)

    async def _compare(self, windows: SeriesRange, clock: int) -> None:
        if windows.begin >= windows.until:
            return
        symbol, timeframe = windows.symbol, str(windows.timeframe)
        check = self._checks.get((symbol, timeframe))
        if check is None:
            check = self._checks[symbol, timeframe] = await self._make_check(symbol)
        candles = self._reader.read(symbol, timeframe, start=windows.begin, end=windows.until)
        stored = {candle.open_time: candle async for candle in candles}
        for differences in check.check(windows, stored, clock):
            self._report.add(differences)

    async def _make_check(self, symbol: str) -> SeriesCheck:
        excuse = self._excuse
        if excuse is None:
            return SeriesCheck(self._rules, offsets=True, joined=self._joined)
        if symbol not in self._gaps:
            self._gaps[symbol] = await self._reader.gaps(symbol)
        gaps = self._gaps[symbol]
        return SeriesCheck(
            self._rules, offsets=False, excuse=lambda symbol, start, end: excuse(symbol, start, end, gaps)
        )

    def _report_unreported(self, unreported: Sequence[LateTrade]) -> None:
        """Late trades without a letter: whoever reads the topics cannot know of them."""
        finest = self._timeframes[0]
        for late in unreported:
            trade = late.trade
            if self._options.start <= trade.traded_at < self._options.end:
                why = (
                    f"trade {trade.trade_id} at offset {late.offset} is beyond the horizon, and {TRADES_LATE} lacks it"
                )
                open_time = finest.open_time(trade.traded_at)
                self._report.add(
                    [Difference(trade.symbol, str(finest), open_time, WHOLE, NONE, "1 trade", why, explained=False)]
                )

    def _note_others(self, stored: Sequence[tuple[str, str]]) -> None:
        others = [series for series in stored if series not in self._checks and self._options.wants(*series)]
        if others:
            symbol, timeframe = others[0]
            have = "stored series has" if len(others) == 1 else "stored series have"
            such = ": " if len(others) == 1 else ", such as "
            self._report.note(
                f"{len(others):,} {have} no whole window with trades to compare with{such}{timeframe} of {symbol}"
            )
