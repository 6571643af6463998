"""What a load comes to: which candles differ from those there are, and which times no file says anything of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.candle import decode_candle, encode_candle
from ashi.contracts.errors import UsageError
from ashi.contracts.timeframe import format_time
from ashi_history.file_fold import NO_LIMIT
from ashi_history.holes import FileSpan, HoleFinder, between_files
from ashi_history.known import content_of
from ashi_history.merge import FileMerge
from ashi_history.seam import join
from ashi_history.series import HistorySeries
from ashi_ingest.history.settled_gaps import Span, without

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO

    from ashi.contracts.candle import Candle
    from ashi.contracts.timeframe import Timeframe
    from ashi_history.folding import FoldedFiles, Folding
    from ashi_history.known import KnownCandle, KnownCandles
    from ashi_history.merge import MergedWindow
    from ashi_history.seam import LeftEdge
    from ashi_history.series import Cut

MOST_HOLES: Final = 10_000
"""Each is a message in topic `feed.gaps`, and a row that every reader of gaps holds."""


class LoadRules(NamedTuple):
    """What decides which candles a load makes.

    Attributes:
        symbol: whose.
        timeframes: all of the state, finest first.
        max_flat: at most so many flat candles in a row.
        contiguous: whether the numbers of the symbol's trades follow each other without a hole.
        adjacent_us: where they do not: of two files that lie no further apart, µs, nothing is missing in between.
        final_until: live candles of windows that ended by then, µs, change no more.

    """

    symbol: str
    timeframes: Sequence[Timeframe]
    max_flat: int
    contiguous: bool
    adjacent_us: int
    final_until: int


@dataclass(slots=True)
class LoadPlan:
    """What is to be published.

    Attributes:
        first: `traded_at` of the first trade of the files, µs; `last` of the last one from before the edge.
        trades: how many the files have, each once; a few of them may be from after the edge.
        holes: when trades may be missing, from `first` up to the edge.
        reaches_edge: whether the files go up to the first live trade.
        edge: the time of that, µs; where it is not in the files `last`.
        made: so many candles were made of the files alone; `changes` of them differ from those there are.
        richer: the first one that has more trades in the topic than were found now; `richer_count`, how many.
        joins: live candles, with what the files have of their windows, that are to be published.
        not_yet: timeframes whose first live candle may change yet, or has not closed: to be joined by a later load.
        lost: timeframes whose first live candle the topic has lost, so that it is left as stores have it.

    """

    first: int = 0
    last: int = 0
    edge: int = 0
    trades: int = 0
    holes: list[Span] = field(default_factory=list)
    reaches_edge: bool = False
    made: int = 0
    changes: int = 0
    richer: Candle | None = None
    richer_count: int = 0
    joins: list[Cut] = field(default_factory=list)
    not_yet: list[Timeframe] = field(default_factory=list)
    lost: list[Timeframe] = field(default_factory=list)

    def known_spans(self) -> list[Span]:
        """The times of which the files have all trades; before the first one there may be others of the same time."""
        spans = [Span(self.first + 1, self.edge)]
        for hole in self.holes:
            spans = without(spans, hole)
        return spans


class CandleSpool:
    """Candles on disk, in the order in which they were put there."""

    def __init__(self, file: IO[bytes]) -> None:
        """`file`: empty, to write to and read from."""
        self._file = file

    def put(self, candle: Candle) -> None:
        """One more."""
        self._file.write(encode_candle(candle) + b"\n")

    def __iter__(self) -> Iterator[Candle]:
        """All of them, when none is to be put there any more."""
        self._file.seek(0)
        return map(decode_candle, self._file)


def make_plan(
    rules: LoadRules,
    edge: LeftEdge,
    known: KnownCandles,
    files: FoldedFiles,
    folding: Folding,
    *,
    number: int,
    spool: CandleSpool,
) -> LoadPlan:
    """Make the candles of all files, compare them with those there are, and put those that differ into the spool.

    `number`: the version of the candles. Raises UsageError when no file has a trade from before the edge, or there are
    more holes than can be told.
    """
    finest = min(rules.timeframes)
    series = HistorySeries(rules.symbol, rules.timeframes, edge, max_flat=rules.max_flat, version=number)
    spans = [FileSpan(file.fold.first, file.fold.last, file.fold.unread) for file in files.with_trades()]
    finder = HoleFinder(finest, between_files(spans, rules.adjacent_us), contiguous=rules.contiguous)
    plan = LoadPlan()
    for window in _windows(finest, edge, files, folding):
        # One by one: a candle is made when the next window comes.
        for candle in series.add(window, after_hole=finder.look(window)):
            _compare(plan, known, candle, spool)
        plan.trades += window.fold.trade_count
    for candle in series.finish():
        _compare(plan, known, candle, spool)
    if series.first is None or series.last is None:
        begin, _ = edge.window
        raise UsageError(
            f"none of the files has trades of {rules.symbol} from before {format_time(begin)} UTC, where its live "
            "candles begin: there is nothing to load. Name files of the time before"
        )
    plan.first, plan.last, plan.reaches_edge = series.first[0], series.last[0], series.reaches_edge
    plan.edge = plan.last if series.edge_time is None else series.edge_time
    _note_holes(plan, finder.finish(), edge)
    _note_joins(plan, rules, edge, known, series.cuts())
    return plan


def _windows(finest: Timeframe, edge: LeftEdge, files: FoldedFiles, folding: Folding) -> Iterator[MergedWindow]:
    merge = FileMerge(finest, edge.near())
    ordered = files.with_trades()
    paths = {file.number: file.path for file in ordered}
    for place, file in enumerate(ordered):
        merge.add(file.number, files.parts(file), file.fold.kept)
        following = ordered[place + 1].fold.first if place + 1 < len(ordered) else NO_LIMIT
        before = merge.free_before(following)
        overlaps = merge.overlaps(before)
        if overlaps:
            merge.replace(folding.trades(paths, overlaps))
        yield from merge.take(before)


def _compare(plan: LoadPlan, known: KnownCandles, candle: Candle, spool: CandleSpool) -> None:
    plan.made += 1
    there = known.get(candle)
    if there is None or _is_to_be_replaced(there, candle):
        plan.changes += 1
        spool.put(candle)
    elif there.is_loaded and there.trade_count > candle.trade_count:
        plan.richer_count += 1
        plan.richer = plan.richer or candle


def _is_to_be_replaced(there: KnownCandle, candle: Candle) -> bool:
    """Whether a candle that was loaded before is another one now, with no fewer trades. Others win in any case."""
    return there.is_loaded and there.trade_count <= candle.trade_count and there.content != content_of(candle)


def _note_holes(plan: LoadPlan, found: Sequence[Span], edge: LeftEdge) -> None:
    # What is missing may have the time of the first live trade; after it, it is for the feed to say.
    until = plan.edge + plan.reaches_edge
    plan.holes = [hole._replace(to_us=min(hole.to_us, plan.edge + 1)) for hole in found if hole.from_us < until]
    if not plan.reaches_edge:
        plan.holes.append(Span(plan.last, edge.window[1]))
    if len(plan.holes) > MOST_HOLES:
        raise UsageError(
            f"there are {len(plan.holes):,} holes in the files, the first at {format_time(plan.holes[0].from_us)} UTC, "
            f"and no more than {MOST_HOLES:,} can be told: name files that follow each other, or say with --adjacent "
            "how far they may lie apart"
        )


def _note_joins(plan: LoadPlan, rules: LoadRules, edge: LeftEdge, known: KnownCandles, cuts: Sequence[Cut]) -> None:
    for cut in cuts:
        there = known.get(cut.live)
        if there is None:  # the topic has lost it, and nobody knows whether it has been joined, or rebuilt, since
            plan.lost.append(_timeframe_of(rules, cut.live))
            continue
        joined = join(cut.earlier, cut.live, 0)
        if there.trade_count > joined.trade_count or there.content == content_of(joined):
            continue
        if cut.live.close_time <= rules.final_until:
            plan.joins.append(cut)
        else:
            plan.not_yet.append(_timeframe_of(rules, cut.live))
    if plan.reaches_edge:
        plan.not_yet += [timeframe for timeframe in rules.timeframes if not edge.has_closed(timeframe)]


def _timeframe_of(rules: LoadRules, candle: Candle) -> Timeframe:
    return next(timeframe for timeframe in rules.timeframes if str(timeframe) == candle.timeframe)
