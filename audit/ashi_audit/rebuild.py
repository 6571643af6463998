"""`ashi rebuild`: candles made again of all their trades, and published where they differ.

The rule is written down in docs/decisions/0005-rebuild.md.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ashi.contracts.candle import CANDLE_SCHEMA, encode_candle
from ashi.contracts.errors import ContractError, UsageError
from ashi.contracts.feed import FEED_GAP_SCHEMA, encode_feed, overlaps
from ashi.contracts.late_gaps import is_late_gap
from ashi.contracts.records import candle_in, feed_gap_in
from ashi.contracts.timeframe import Timeframe, format_time
from ashi.contracts.topics import CANDLES, FEED_GAPS, TRADES, TRADES_LATE
from ashi.runtime.kafka.cluster.offsets import end_offsets, offsets_at
from ashi.runtime.kafka.cluster.topics import partition_counts, require_topics
from ashi.runtime.kafka.connections.clients import make_producer, partition_of
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.kafka.consuming.records import read_between, read_topic
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi.runtime.spelling import did_you_mean
from ashi.runtime.words import counted
from ashi_aggregate.epoch import claim_rebuild, last_rebuild, require_epoch
from ashi_audit.part_recount import PartRecount
from ashi_audit.rebuilt_series import RebuiltSeries
from ashi_audit.report import (
    NONE,
    SHOWN,
    WHOLE,
    Difference,
    field_differences,
    same_content,
    show_differences,
)
from ashi_audit.request import check_request
from ashi_audit.rules import rules_of_epoch
from ashi_audit.sources.base import MARGIN_US
from ashi_audit.sources.choice import open_source
from ashi_audit.taken_in import TakenIn

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap
    from ashi.runtime.settings import Settings
    from ashi_audit.native_lake import NativeAddition
    from ashi_audit.recount import LateTrade
    from ashi_audit.rules import CandleRules
    from ashi_audit.sources.base import SourcePart, TradeSource

SENT_AT_ONCE: Final = 1_000

Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class RebuildOptions:
    """What to rebuild.

    Attributes:
        start: the windows that began then or later, µs; `end` before that.
        symbols: only these; all if empty.
        dry_run: only print what would be published.
        lake: the URL of a lake to take the trades from, instead of topic `trades`.

    """

    start: int
    end: int
    symbols: Sequence[str] = ()
    dry_run: bool = False
    lake: str | None = None


@dataclass(slots=True)
class RebuildPlan:
    """What is to be published, with what is known of the same windows now; and what is left as it is, and why.

    `ended`: the gaps of late trades that no candle lacks when that is published. `lasting`: those that stay.
    """

    changes: list[tuple[Candle | None, Candle]] = field(default_factory=list)
    looked_at: int = 0
    richer: list[Key] = field(default_factory=list)
    unreported: list[LateTrade] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    not_final: bool = False
    ended: list[FeedGap] = field(default_factory=list)
    lasting: list[FeedGap] = field(default_factory=list)


async def run_rebuild(settings: Settings, options: RebuildOptions) -> int:
    """Rebuild, publish, and say what was done; the exit status.

    Raises UsageError when there are no trades of a symbol, StateError when a new state or another rebuild came in
    between, BrokerError when Kafka is out of reach.
    """
    check_request(options.symbols, options.start, options.end)
    await require_topics(settings, [TRADES, TRADES_LATE, CANDLES, FEED_GAPS])
    epoch = await require_epoch(settings)
    last = await last_rebuild(settings)
    timeframes = [Timeframe.parse(name) for name in epoch.timeframes]
    counts = await partition_counts(settings)
    addition = _addition(settings, options, min(timeframes))
    source = await open_source(
        settings,
        options.lake,
        epoch=epoch,
        partitions=counts[TRADES],
        symbols=options.symbols,
        start=options.start,
        end=options.end,
        on_note=_note,
        addition=addition,
    )
    number = max(epoch.epoch, last) + 1
    planner = _Planner(
        settings, options, rules=rules_of_epoch(epoch), timeframes=timeframes, number=number, counts=counts
    )
    plan = await planner.plan(source)
    if addition is not None and addition.left:
        _note(
            f"Python has added up some {addition.left:,} of the trades: among these are some that the native fold does "
            "not read"
        )
    unknown = [symbol for symbol in options.symbols if symbol not in plan.seen]
    if unknown:
        where = f"topic {kafka_name(settings, TRADES)}" if options.lake is None else "the lake"
        raise UsageError(
            f"there are no trades of {unknown[0]} in {where} from {format_time(options.start)} on"
            + (did_you_mean(unknown[0], await _published_symbols(settings, options.start)) or ": correct --symbol.")
            + (" Trades that the topic no longer has may be in a lake (--trades)" if options.lake is None else "")
        )
    _show(plan, options, kafka_name(settings, TRADES_LATE))
    if plan.changes and not options.dry_run:
        await claim_rebuild(settings, epoch, last, options.start, options.end)
        await _publish(settings, [candle for _, candle in plan.changes])
        print(f"{len(plan.changes):,} of {plan.looked_at:,} candles differed and were published, in epoch {number}")
    else:
        would = "would be published" if plan.changes else "nothing is to be published"
        print(f"{len(plan.changes):,} of {plan.looked_at:,} candles differ: {would}")
    if plan.ended and not options.dry_run:
        await _tell(settings, plan.ended)
    _show_gaps(plan, options, kafka_name(settings, FEED_GAPS))
    return 0


def _note(sentence: str) -> None:
    print(f"note: {sentence}", file=sys.stderr)


def _addition(settings: Settings, options: RebuildOptions, finest: Timeframe) -> NativeAddition | None:
    """The native library for the trades of a lake; without it, where it is wanted, that is said."""
    if options.lake is None or not settings.native_fold:
        return None
    from ashi_audit.native_lake import native_addition

    addition = native_addition(finest)
    if isinstance(addition, str):
        _note(addition)
        return None
    return addition


async def _published_symbols(settings: Settings, start: int) -> set[str]:
    """The symbols that candles have been published of since then, µs."""
    symbols: set[str] = set()
    begin = await offsets_at(settings, CANDLES, (start - MARGIN_US) // 1000)
    async for _, records in read_between(settings, CANDLES, begin, await end_offsets(settings, CANDLES)):
        symbols |= {(record.key or b"").decode(errors="replace") for record in records}
    return symbols


class _Planner:
    """Finds the candles that differ from those in topic `candles`, a partition after the other."""

    def __init__(
        self,
        settings: Settings,
        options: RebuildOptions,
        *,
        rules: CandleRules,
        timeframes: Sequence[Timeframe],
        number: int,
        counts: dict[str, int],
    ) -> None:
        """`number`: the epoch of the rebuilt candles. `counts`: partitions of the topics."""
        self._settings = settings
        self._options = options
        self._rules = rules
        self._timeframes = timeframes
        self._number = number
        self._counts = counts

    async def plan(self, source: TradeSource) -> RebuildPlan:
        """Compare everything, publish nothing."""
        plan = RebuildPlan()
        taken_in = TakenIn(await self._late_gaps(), self._timeframes, self._options.end)
        recount = PartRecount(
            self._rules,
            self._timeframes,
            start=self._options.start,
            end=self._options.end,
            symbols=self._options.symbols,
        )
        async for part in source.parts():
            await self._plan_part(part, recount, taken_in, plan)
        plan.seen, plan.unreported = recount.seen, recount.unreported
        unknown: set[Key] = set()
        if plan.unreported:
            unknown = {key for late in plan.unreported for key in self._keys(late)}
            plan.changes = [change for change in plan.changes if _key(change[1]) not in unknown]
        plan.ended, plan.lasting = taken_in.split({*unknown, *plan.richer})
        return plan

    async def _late_gaps(self) -> list[FeedGap]:
        """What was said last of each gap that late trades have left, and that has a part in the range."""
        options = self._options
        gaps: dict[tuple[str, int], FeedGap] = {}
        async for record in read_topic(self._settings, FEED_GAPS):
            try:
                gap = feed_gap_in(record)
            except ContractError:
                continue  # no reader takes it
            before = gaps.get((gap.symbol, gap.from_time))
            if before is None or gap.updated_at > before.updated_at:
                gaps[gap.symbol, gap.from_time] = gap
        return [
            gap
            for _, gap in sorted(gaps.items())
            if is_late_gap(gap)
            and overlaps(gap, options.start, options.end)
            and (not options.symbols or gap.symbol in options.symbols)
        ]

    async def _plan_part(self, part: SourcePart, recount: PartRecount, taken_in: TakenIn, plan: RebuildPlan) -> None:
        before_it = set(recount.seen)
        rebuilt: dict[Key, Candle] = {}
        by_series: dict[tuple[str, Timeframe], RebuiltSeries] = {}
        async for windows, _ in recount.ranges(part):
            if not windows.settled:
                plan.not_final = True
                continue
            series = by_series.get((windows.symbol, windows.timeframe))
            if series is None:
                series = RebuiltSeries(epoch=self._number, max_flat=self._rules.max_flat)
                by_series[windows.symbol, windows.timeframe] = series
            taken_in.note(windows)
            rebuilt.update((_key(candle), candle) for candle in series.candles(windows))
        known = await self._known(part, rebuilt)
        for key, candle in rebuilt.items():
            before = known.get(key)
            if before is not None and before.trade_count > candle.trade_count:
                plan.richer.append(key)
            elif before is None or not same_content(before, candle):
                plan.changes.append((before, candle))
        plan.looked_at += len(rebuilt)
        symbols = recount.seen - before_it
        if part.read_until is not None and taken_in.has(symbols):
            taken_in.end_part(symbols, recount.whole_from, await part.read_until())

    def _keys(self, late: LateTrade) -> Iterator[Key]:
        for timeframe in self._timeframes:
            yield late.trade.symbol, str(timeframe), timeframe.open_time(late.trade.traded_at)

    async def _known(self, part: SourcePart, wanted: Container[Key]) -> dict[Key, Candle]:
        """The candles that any reader has by now: of each window wanted the one of the greatest version."""
        settings = self._settings
        begin = await offsets_at(settings, CANDLES, (self._options.start - MARGIN_US) // 1000)
        end = await end_offsets(settings, CANDLES)
        partitions = self._counts[TRADES]
        if part.number is not None and self._counts[CANDLES] == partitions:
            begin = {part.number: begin[part.number]}
        best: dict[Key, Candle] = {}
        async for _, records in read_between(settings, CANDLES, begin, end):
            for record in records:
                if part.number is not None and partition_of(record.key or b"", partitions) != part.number:
                    continue
                try:
                    candle = candle_in(record)
                except ContractError:
                    continue  # no reader takes it
                key = _key(candle)
                if key in wanted and (key not in best or candle.version > best[key].version):
                    best[key] = candle
        return best


def _key(candle: Candle) -> Key:
    return candle.symbol, candle.timeframe, candle.open_time


def _show(plan: RebuildPlan, options: RebuildOptions, late_topic: str) -> None:
    from rich.console import Console

    rows: list[Difference] = []
    changes = sorted(plan.changes, key=lambda change: _place(change[1]))
    for before, candle in changes[:SHOWN]:
        if before is not None:
            rows += field_differences(before, candle, "", explained=False)
        else:
            what = counted(candle.trade_count, "trade") if candle.trade_count else "flat"
            rows.append(Difference(*_key(candle), WHOLE, NONE, what, "", explained=False))
    if rows:
        show_differences(Console(), rows, "rebuilt", stored="published")
    if len(plan.changes) > SHOWN:
        print(f"and {counted(len(plan.changes) - SHOWN, 'more candle')}", file=sys.stderr)
    if plan.richer:
        print(f"{_keys_have(plan.richer)} more trades than were found: left as published", file=sys.stderr)
    if plan.unreported:
        first = plan.unreported[0]
        print(
            f"{counted(len(plan.unreported), 'trade')} came too late and not in topic {late_topic}, the first at "
            f"offset {first.offset} of {first.trade.symbol}: windows with such trades are left as they are",
            file=sys.stderr,
        )
    if plan.not_final:
        print(f"windows before {format_time(options.end)} that are not final yet are left out", file=sys.stderr)


def _show_gaps(plan: RebuildPlan, options: RebuildOptions, topic: str) -> None:
    if plan.ended:
        what = "would be" if options.dry_run else "are" if len(plan.ended) > 1 else "is"
        print(f"{counted(len(plan.ended), 'gap')} of trades that came too late {what} repaired, in topic {topic}")
    if plan.lasting:
        first = plan.lasting[0]
        print(
            f"{counted(len(plan.lasting), 'gap')} of trades that came too late cannot be ended yet, the first of "
            f"{first.symbol} at {format_time(first.from_time)}: all its candles must be in the range, and final",
            file=sys.stderr,
        )


def _keys_have(keys: Sequence[Key]) -> str:
    symbol, timeframe, open_time = keys[0]
    first = f"{timeframe} of {symbol} at {format_time(open_time)}"
    return f"1 candle, {first}, has" if len(keys) == 1 else f"{len(keys):,} candles, such as {first}, have"


def _place(candle: Candle) -> tuple[str, int, int]:
    return candle.symbol, candle.close_time - candle.open_time, candle.open_time


async def _publish(settings: Settings, candles: Sequence[Candle]) -> None:
    """Send them as the workers do, and wait until Kafka has all."""
    await _send(settings, CANDLES, [(each.symbol, encode_candle(each)) for each in candles], CANDLE_SCHEMA)


async def _tell(settings: Settings, gaps: Sequence[FeedGap]) -> None:
    """Send gaps, and wait until Kafka has all. Their candles must be there already."""
    await _send(settings, FEED_GAPS, [(each.symbol, encode_feed(each)) for each in gaps], FEED_GAP_SCHEMA)


async def _send(settings: Settings, topic: str, messages: Sequence[tuple[str, bytes]], schema: str) -> None:
    headers = message_headers(schema)
    producer = make_producer(settings)
    await producer.start()
    try:
        for begin in range(0, len(messages), SENT_AT_ONCE):
            sent = [
                await producer.send(topic, key=symbol.encode(), value=value, headers=headers)
                for symbol, value in messages[begin : begin + SENT_AT_ONCE]
            ]
            await asyncio.gather(*sent)
    finally:
        await producer.stop()
