"""`ashi history load`: candles of files from before the live ones, published where they differ.

The rule is written down in docs/decisions/0016-before-the-live-candles.md. A load that is killed has published a part;
run again it makes all candles anew, and publishes those that are not there. It leaves nothing else to go on from.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import dataclass
from itertools import islice
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from msgspec.structs import replace

from ashi.contracts.candle import CANDLE_SCHEMA, encode_candle
from ashi.contracts.errors import EXIT_PARTIAL, ContractError, StateError, UsageError
from ashi.contracts.feed import FEED_GAP_SCHEMA, encode_feed
from ashi.contracts.records import HISTORY_HEADER
from ashi.contracts.symbol import split_symbol
from ashi.contracts.timeframe import Timeframe, format_time
from ashi.contracts.topics import CANDLES, FEED_GAPS, TRADES
from ashi.runtime import wall_clock
from ashi.runtime.kafka.cluster.topics import partition_counts, require_topics
from ashi.runtime.kafka.connections.clients import make_producer, partition_of
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi.runtime.spelling import did_you_mean
from ashi_aggregate.core.trade_ids import COPIES_APART_US
from ashi_aggregate.epoch import claim_rebuild, last_rebuild, require_epoch
from ashi_aggregate.inspect import durable_ends
from ashi_aggregate.loads import JoinedCandles, Load, claim_load, read_loads
from ashi_history.folding import Folding, FoldRequest, folded_files, folding_processes
from ashi_history.gaps import gap_messages
from ashi_history.known import KnownCandles
from ashi_history.plan import CandleSpool, LoadRules, make_plan
from ashi_history.seam import LeftEdge, join
from ashi_ingest.feed.reporting.reported import read_unrepaired
from ashi_ingest.known_venues import venue_named
from ashi_ingest.recording.check import check_recording
from ashi_ingest.venues.registry import VENUES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap
    from ashi.runtime.kafka.producing.dead_letters import Headers
    from ashi.runtime.settings import Settings
    from ashi_aggregate.epoch import Epoch
    from ashi_history.folding import FoldedFiles
    from ashi_history.plan import LoadPlan

SENT_AT_ONCE: Final = 1_000
TELL_EVERY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What to load.

    Attributes:
        files: recordings of frames, or files of trades, in any order.
        symbol: whose trades; `venue:MARKET`.
        adjacent_us: where trades have no numbers that follow each other: of two files that lie no further apart, µs,
            nothing is missing in between.
        jobs: so many files are read at once; None: as many as there are processors.
        dry_run: only say what would be published.

    """

    files: Sequence[Path]
    symbol: str
    adjacent_us: int = 0
    jobs: int | None = None
    dry_run: bool = False


class _Found(NamedTuple):
    """What Kafka says before anything is read: `number` is that of this load."""

    epoch: Epoch
    last_rebuild: int
    rules: LoadRules
    known: KnownCandles
    edge: LeftEdge
    number: int
    loads: list[Load]


def run_load(settings: Settings, options: LoadOptions) -> int:
    """Load, and say what was done; the exit status: 3 where a part of a file could not be read.

    Raises UsageError for files or a symbol that nothing can be made of, StateError where it is too early, or another
    load, a rebuild or a new state came in between, BrokerError when Kafka is out of reach.
    """
    _check_files(options)
    found = asyncio.run(_look(settings, options))
    rules, edge = found.rules, found.edge
    finest = min(rules.timeframes)
    request = FoldRequest(options.symbol, finest, edge.until(rules.timeframes), frozenset(edge.near()))
    jobs = max(min(options.jobs or os.cpu_count() or 1, len(options.files)), 1)
    with folded_files() as files, TemporaryFile() as file, folding_processes(jobs) as executor:
        folding = Folding(executor, jobs, request)
        is_partial = _fold(options, folding, files)
        spool = CandleSpool(file)
        plan = make_plan(rules, edge, found.known, files, folding, number=found.number, spool=spool)
        _check_range(plan, found.loads, options.symbol)
        _tell_plan(plan, options.symbol)
        if options.dry_run:
            _tell(f"{plan.changes:,} of {plan.made:,} candles would be published{_joined_text(plan)}")
        else:
            asyncio.run(_publish(settings, options.symbol, found, plan, spool))
    return EXIT_PARTIAL if is_partial else 0


def _tell(sentence: str) -> None:
    print(sentence, flush=True)


def _note(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _check_files(options: LoadOptions) -> None:
    try:
        venue, _ = split_symbol(options.symbol)
    except ContractError as error:
        raise UsageError(f"--symbol: {error}") from None
    venue_named(venue, "--symbol: ")
    names = [os.path.realpath(path) for path in options.files]
    for place, path in enumerate(options.files):
        if names[place] in names[:place]:
            raise UsageError(f"{path} is given twice: name each file once")
        check_recording(venue, path)


async def _look(settings: Settings, options: LoadOptions) -> _Found:
    """What the topics say of the symbol. Raises UsageError, StateError and BrokerError."""
    symbol = options.symbol
    await require_topics(settings, [TRADES, CANDLES, FEED_GAPS])
    epoch = await require_epoch(settings)
    timeframes = sorted(map(Timeframe.parse, epoch.timeframes))
    loads = await read_loads(settings)
    # Before the topic: what is durable by then stands there.
    durable = await durable_ends(settings, epoch.epoch)
    partition = partition_of(symbol.encode(), (await partition_counts(settings))[TRADES])
    known = KnownCandles(symbol, timeframes, JoinedCandles(loads), epoch.epoch, durable.get(partition, 0))
    await known.read(settings)
    of_symbol = [load for load in loads if load.symbol == symbol]
    written_down = next((load.edge for load in reversed(of_symbol) if load.edge), [])
    is_known = known.is_whole or known.begins_with(written_down)
    finest = timeframes[0]
    if finest not in known.oldest_live:
        raise UsageError(
            f"topic {kafka_name(settings, CANDLES)} has no live candle of {symbol} in {finest}, so it is not known "
            "where what is loaded has to end: publish trades of it first (`ashi ingest`), and load what is older then"
            f"{did_you_mean(symbol, known.symbols)}"
        )
    if not is_known:
        raise StateError(
            f"topic {kafka_name(settings, CANDLES)} does not have its first candles any more, so it is not known where "
            f"the live ones of {symbol} begin: a first load writes that down, and it must come as long as the topic "
            "keeps them (90 days, unless its retention.ms says otherwise)"
        )
    edge = LeftEdge(known.oldest_live, finest)
    final_until = known.final_until(epoch.correction_horizon_us, finest, COPIES_APART_US)
    begin, _ = edge.window
    if final_until < begin:
        raise StateError(
            f"the live candles of {symbol} begin at {format_time(begin)} UTC, and trades from before that may still "
            "count for them: load what is older when it has traded for some minutes more, and the workers have come to "
            "the end of their topic"
        )
    venue, market = split_symbol(symbol)
    rules = LoadRules(
        symbol,
        timeframes,
        epoch.flat_candles,
        VENUES[venue].live(has_key=False).contiguous(market),
        options.adjacent_us,
        final_until,
    )
    number = max((load.load for load in of_symbol), default=-1) + 1
    return _Found(epoch, await last_rebuild(settings), rules, known, edge, number, of_symbol)


def _fold(options: LoadOptions, folding: Folding, files: FoldedFiles) -> bool:
    """Fold all files; whether a part of one could not be read."""
    is_partial = False
    begun_s = told_s = time.monotonic()
    trades = 0
    for place, fold in enumerate(folding.folds(options.files), start=1):
        path = options.files[place - 1]
        files.add(path, fold)
        trades += fold.trades
        is_partial = is_partial or bool(fold.notes)
        for note in fold.notes:
            _note(f"note: {note}")
        if not fold.trades:
            others = sorted(set(fold.symbols) - {options.symbol})
            has = f"; it has {', '.join(others[:5])}" if others and options.symbol not in fold.symbols else ""
            _note(f"note: {path} has no trades of {options.symbol} from before its live candles{has}")
        now_s = time.monotonic()
        if now_s - told_s >= TELL_EVERY_S and place < len(options.files):
            told_s = now_s
            left_s = (now_s - begun_s) / place * (len(options.files) - place)
            _note(f"{place:,} of {len(options.files):,} files, {trades:,} trades; about {left_s:.0f} s are left")
    return is_partial


def _check_range(plan: LoadPlan, loads: Iterable[Load], symbol: str) -> None:
    """What lies between two loads nobody would know: the files of a load have to go as far as those before."""
    for load in loads:
        if plan.first > load.first or plan.last < load.last:
            raise UsageError(
                f"{symbol} was loaded from {format_time(load.first)} to {format_time(load.last)} UTC before, and these "
                f"files go from {format_time(plan.first)} to {format_time(plan.last)}: name all files at once, those "
                "and these. What is there already is not published again"
            )


def _tell_plan(plan: LoadPlan, symbol: str) -> None:
    _tell(
        f"{symbol}: {plan.trades:,} trades from {format_time(plan.first)} to {format_time(plan.last)} UTC; "
        + ("they go up to the first live one" if plan.reaches_edge else "the live candles begin later")
    )
    for hole in plan.holes[:10]:
        _tell(f"trades may be missing from {format_time(hole.from_us)} to {format_time(hole.to_us)} UTC")
    if len(plan.holes) > 10:
        _tell(f"and in {len(plan.holes) - 10:,} more times, all of which are told in topic feed.gaps")
    if plan.richer is not None:
        first = f"{plan.richer.timeframe} at {format_time(plan.richer.open_time)} UTC"
        _tell(f"{plan.richer_count:,} candles, such as {first}, have more trades than these files: left as they are")
    if plan.not_yet:
        _tell(
            f"the first live candle in {', '.join(map(str, plan.not_yet))} lacks what the files have of its window, "
            "and may still change: load again when it has closed and some minutes have passed"
        )
    if plan.lost:
        _tell(
            f"the first live candle in {', '.join(map(str, plan.lost))} is not in the topic any more: it is left as "
            "it is, and what the topic has lost of loaded candles is published again"
        )


def _joined_text(plan: LoadPlan) -> str:
    if not plan.joins:
        return ""
    return f", and the first live candle in {', '.join(cut.live.timeframe for cut in plan.joins)} joined with the files"


async def _publish(settings: Settings, symbol: str, found: _Found, plan: LoadPlan, spool: CandleSpool) -> None:
    """Publish what differs. What is lost is told before the candles, and what is not lost any more after them."""
    now_us = wall_clock.now_us()
    lost, settled = gap_messages(symbol, plan, (await read_unrepaired(settings, [symbol]))[symbol], now_us)
    joined: list[Candle] = []
    if plan.joins:
        opened = [cut.live.open_time for cut in plan.joins]
        end = max(cut.live.close_time for cut in plan.joins)
        rebuild = await claim_rebuild(settings, found.epoch, found.last_rebuild, min(opened), end)
        joined = [join(cut.earlier, cut.live, rebuild) for cut in plan.joins]
    edge = found.known.final_edge(found.rules.final_until)
    is_news = len(edge) > max((len(load.edge) for load in found.loads), default=0)
    if plan.changes or joined or is_news:
        load = Load(found.number, symbol, plan.first, plan.last, now_us, edge=edge)
        if joined:
            load = replace(load, joined=[(each.timeframe, each.open_time) for each in joined], rebuild=rebuild)
        await claim_load(settings, found.epoch, load)
    async with _Sender(settings, symbol) as sender:
        await sender.gaps(lost)
        await sender.candles(spool, found.number)
        await sender.candles(joined, None)
        await sender.gaps(settled)
    _tell(f"{plan.changes:,} of {plan.made:,} candles were published{_joined_text(plan)}")


class _Sender:
    """Sends messages of one symbol, and waits until Kafka has them."""

    def __init__(self, settings: Settings, symbol: str) -> None:
        self._producer = make_producer(settings)
        self._key = symbol.encode()

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def gaps(self, gaps: Iterable[FeedGap]) -> None:
        """Send gaps."""
        await self._send(FEED_GAPS, map(encode_feed, gaps), message_headers(FEED_GAP_SCHEMA))

    async def candles(self, candles: Iterable[Candle], load: int | None) -> None:
        """Send candles; `load`: the number of the load that made them of files alone."""
        headers = message_headers(CANDLE_SCHEMA)
        if load is not None:
            headers.append((HISTORY_HEADER, str(load).encode()))
        await self._send(CANDLES, map(encode_candle, candles), headers)

    async def _send(self, topic: str, values: Iterable[bytes], headers: Headers) -> None:
        values = iter(values)
        while batch := list(islice(values, SENT_AT_ONCE)):
            sent = [await self._producer.send(topic, key=self._key, value=value, headers=headers) for value in batch]
            await asyncio.gather(*sent)
