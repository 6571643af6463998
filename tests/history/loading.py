"""What the tests of `ashi history load` share: files that stand in memory, live candles, and what is made of both."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ashi.contracts import Candle, Timeframe, Trade
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.core.window_state import WindowRules
from ashi_history.file_fold import FileFolder
from ashi_history.folding import FoldedFiles
from ashi_history.known import KnownCandles
from ashi_history.plan import CandleSpool, LoadPlan, LoadRules, make_plan
from ashi_history.seam import LeftEdge, join

SYMBOL = "bitflyer:BTC_JPY"
NAMES = ["1m", "5m", "1h"]
TIMEFRAMES = [Timeframe.parse(name) for name in NAMES]
FINEST = TIMEFRAMES[0]
FAR = 2**62


def live_candles(log: Sequence[Trade], epoch: int = 1) -> list[Candle]:
    """What workers make of a log."""
    worker = SymbolAggregator(TIMEFRAMES, WindowRules(finest=FINEST, epoch=epoch))
    return [*worker.on_trades(log, list(range(len(log)))).candles, *worker.corrections()]


class MemoryFolding:
    """Stands for processes that fold files: these are in memory."""

    def __init__(self, files: Sequence[Sequence[Trade]], edge: LeftEdge, batch: int) -> None:
        self.request: Any = None
        self._files = files
        self._edge = edge
        self._batch = batch

    def folded(self) -> FoldedFiles:
        found = FoldedFiles(io.BytesIO())
        for number, file in enumerate(self._files):
            folder = FileFolder(FINEST, until=self._edge.until(TIMEFRAMES), keep=self._edge.near())
            for place in range(0, len(file), self._batch):
                folder.add(file[place : place + self._batch])
            found.add(Path(str(number)), folder.finish())
        return found

    def trades(
        self, paths: Mapping[int, Path], windows: Mapping[int, Collection[int]]
    ) -> dict[int, dict[int, list[Trade]]]:
        found: dict[int, dict[int, list[Trade]]] = {}
        for number, wanted in windows.items():
            assert paths[number] == Path(str(number))
            for trade in self._files[number]:
                start = FINEST.open_time(trade.traded_at)
                if start in wanted and trade.traded_at < self._edge.until(TIMEFRAMES):
                    found.setdefault(start, {}).setdefault(number, []).append(trade)
        return found


class Loaded(NamedTuple):
    plan: LoadPlan
    candles: list[Candle]
    joined: list[Candle]


def load(
    files: Sequence[Sequence[Trade]],
    live: Sequence[Candle],
    *,
    loaded: Sequence[Candle] = (),
    joined: Collection[Candle] = (),
    written_down: Sequence[Candle] = (),
    contiguous: bool = False,
    adjacent_us: int = FAR,
    number: int = 0,
    final_until: int = FAR,
    batch: int = 7,
) -> Loaded:
    """Load files where there are `live` candles, and `loaded` and `joined` ones of loads before.

    `written_down`: the oldest live candles, where the topic has lost its beginning.
    """
    known = KnownCandles(SYMBOL, TIMEFRAMES, joined, 1, FAR)
    for candle in [*live, *joined]:
        known.take(candle, is_loaded=False)
    for candle in loaded:
        known.take(candle, is_loaded=True)
    assert not written_down or known.begins_with(written_down)
    edge = LeftEdge(known.oldest_live, FINEST)
    rules = LoadRules(SYMBOL, TIMEFRAMES, 1_440, contiguous, adjacent_us, final_until)
    folding: Any = MemoryFolding(files, edge, batch)
    spool = CandleSpool(io.BytesIO())
    plan = make_plan(rules, edge, known, folding.folded(), folding, number=number, spool=spool)
    return Loaded(plan, list(spool), [join(cut.earlier, cut.live, 2) for cut in plan.joins])


def pieces(trades: Sequence[Trade], size: int) -> Iterator[Sequence[Trade]]:
    for place in range(0, len(trades), size):
        yield trades[place : place + size]
