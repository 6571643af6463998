"""`ashi verify --trades` is no echo of the workers: a worker with any of these mistakes is found out by it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from rich.console import Console
from verifying import MINUTE, NAMES, store

from ashi.contracts import Candle, Timeframe, Trade
from ashi_aggregate.core import aggregator, symbol, trade_ids
from ashi_aggregate.core.fold import Fold, fold_trades
from ashi_aggregate.core.trade_ids import TradeIds
from ashi_aggregate.core.window_state import WindowRules
from ashi_audit.report import Report
from ashi_audit.request import VerifyOptions
from ashi_audit.rules import CandleRules
from ashi_audit.sources.base import SourcePart, TradeBatch
from ashi_audit.verify_trades import Verification
from ashi_sinks.registry import open_reader
from samples.hypothesis_strategies import START

SYMBOL = "binance:ETHUSDT"
TIMEFRAMES = [Timeframe.parse(name) for name in NAMES]
BATCH = 7


def a_log() -> list[Trade]:
    """What makes every rule of the workers matter: disorder, copies, late trades, both sides, many digits."""
    trades = []
    for number in range(60):
        at = START + number * MINUTE // 4 + (number % 3) * 2_000_000
        price, size = Decimal(50_000 + (number * 37) % 101) / 1000, Decimal(number + 1) / 10**9
        trades.append(Trade(SYMBOL, str(number), price, size, "sell" if number % 3 else "buy", at, at, number))
    trades[20], trades[21] = trades[21], trades[20]  # the later one comes first, and last in its minute
    trades[23], trades[22] = trades[22], trades[23]
    trades[36:36] = [trades[30]]  # a copy, and one that is stamped on the other side of a minute's beginning
    again_at = START + 10 * MINUTE
    edge = Trade(SYMBOL, "edge", Decimal("50.001"), Decimal("0.3"), "buy", again_at, again_at, 0)
    trades[44:44] = [edge, msgspec.structs.replace(edge, traded_at=again_at - 1)]
    late = START + 2 * MINUTE + 1
    trades[50:50] = [Trade(SYMBOL, "late", Decimal(50), Decimal("0.2"), "buy", late, late, 0)]
    return trades


def worked(log: Sequence[Trade]) -> tuple[list[Candle], dict[int, Trade]]:
    """What a worker publishes of a log: the newest of each candle, and its late letters by their offsets."""
    worker = symbol.SymbolAggregator(TIMEFRAMES, WindowRules(finest=TIMEFRAMES[0]))
    newest: dict[tuple[str, int], Candle] = {}
    letters: dict[int, Trade] = {}
    for begin, end in pairwise([*range(0, len(log), BATCH), len(log)]):
        outcome = worker.on_trades(log[begin:end], list(range(begin, end)))
        letters |= {begin + late.place: late.trade for late in outcome.late}
        for candle in [*outcome.candles, *worker.corrections()]:
            known = newest.get((candle.timeframe, candle.open_time))
            if known is None or candle.version > known.version:
                newest[candle.timeframe, candle.open_time] = candle
    return list(newest.values()), letters


class LogSource:
    """A partition that holds a log, and the letters of its late trades."""

    def __init__(self, log: Sequence[Trade], letters: dict[int, Trade]) -> None:
        self._log = log
        self._letters = letters

    async def parts(self) -> AsyncIterator[SourcePart]:
        yield SourcePart(0, {SYMBOL: self._letters}, 0, self._batches())

    async def _batches(self) -> AsyncIterator[TradeBatch]:
        yield TradeBatch(SYMBOL, self._log, range(len(self._log)))


def verified(tmp_path: Path, capsys: pytest.CaptureFixture[str], log: list[Trade]) -> tuple[int, set[str]]:
    """The status of a verification of what a worker makes of a log, and the fields that differ without a reason."""
    candles, letters = worked(log)
    url = store(tmp_path, candles)

    async def run() -> int:
        report = Report(Console(), expected="recomputed", as_json=True)
        async with open_reader(url) as reader:
            await Verification(
                VerifyOptions(url),
                reader,
                report,
                source=LogSource(log, letters),
                rules=CandleRules(finest=TIMEFRAMES[0]),
                timeframes=TIMEFRAMES,
                excuse=None,
            ).run()
        return report.finish()

    status = asyncio.run(run())
    *rows, _ = map(json.loads, capsys.readouterr().out.splitlines())
    return status, {row["field"] for row in rows if not row["explained"]}


def test_a_worker_without_a_mistake_is_found_to_be_right(tmp_path, capsys):
    log = a_log()
    _, letters = worked(log)
    assert [trade.trade_id for trade in letters.values()] == ["late"]
    assert verified(tmp_path, capsys, log) == (0, set())


def folding(monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Sequence[Trade], Fold], Fold]) -> None:
    """Let a fold of trades be what `wrong` makes of it."""

    def fold(trades: Sequence[Trade], open_time: int, offset: int) -> Fold:
        return wrong(trades, fold_trades(trades, open_time, offset))

    monkeypatch.setattr(symbol, "fold_trades", fold)
    monkeypatch.setattr(aggregator, "fold_trades", fold)


def high_is_not_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    folding(monkeypatch, lambda trades, fold: msgspec.structs.replace(fold, high=trades[0].price))


def high_is_not_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    merge = Fold.merge

    def merge_all_but_the_high(fold: Fold, other: Fold) -> None:
        high = fold.high
        merge(fold, other)
        fold.high = high

    monkeypatch.setattr(Fold, "merge", merge_all_but_the_high)


def close_is_the_last_to_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    def arrival(trades: Sequence[Trade], fold: Fold) -> Fold:
        last = trades[-1]
        return msgspec.structs.replace(fold, last=(last.traded_at, last.sequence, last.trade_id, last.price))

    folding(monkeypatch, arrival)


def quote_volume_is_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    folding(
        monkeypatch,
        lambda _, fold: msgspec.structs.replace(fold, quote_volume=fold.quote_volume.quantize(Decimal("0.00000001"))),
    )


def taker_side_is_inverted(monkeypatch: pytest.MonkeyPatch) -> None:
    folding(
        monkeypatch,
        lambda _, fold: msgspec.structs.replace(
            fold,
            taker_buy_volume=fold.volume - fold.taker_buy_volume,
            taker_buy_quote_volume=fold.quote_volume - fold.taker_buy_quote_volume,
        ),
    )


def copies_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TradeIds, "admit", lambda *_: True)


def copies_stamped_apart_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trade_ids, "COPIES_APART_US", 0)


def every_other_trade_is_taken_for_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    admit = TradeIds.admit
    monkeypatch.setattr(TradeIds, "all_new", lambda *_: False)
    monkeypatch.setattr(TradeIds, "admit", lambda ids, trade_id, at: admit(ids, trade_id, at) and trade_id[-1] != "2")


def late_trades_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbol, "late_reason", lambda *_: None)


def late_trades_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    on_trades = symbol.SymbolAggregator.on_trades
    monkeypatch.setattr(
        symbol.SymbolAggregator, "on_trades", lambda *arguments: on_trades(*arguments)._replace(late=[])
    )


def windows_end_a_moment_later(monkeypatch: pytest.MonkeyPatch) -> None:
    on_trades = symbol.SymbolAggregator.on_trades

    def on_earlier_trades(worker: symbol.SymbolAggregator, trades: Sequence[Trade], offsets: Sequence[int]) -> object:
        return on_trades(worker, [msgspec.structs.replace(t, traded_at=t.traded_at - 1) for t in trades], offsets)

    monkeypatch.setattr(symbol.SymbolAggregator, "on_trades", on_earlier_trades)


@pytest.mark.parametrize(
    ("mistake", "fields"),
    [
        (high_is_not_updated, {"high"}),
        (high_is_not_merged, {"high"}),
        (close_is_the_last_to_arrive, {"close", "last_trade_id"}),
        (quote_volume_is_rounded, {"quote_volume"}),
        (taker_side_is_inverted, {"taker_buy_volume", "taker_buy_quote_volume"}),
        (copies_are_counted, {"trade_count", "volume"}),
        (copies_stamped_apart_are_counted, {"trade_count", "volume"}),
        (every_other_trade_is_taken_for_a_copy, {"trade_count", "volume"}),
        (late_trades_are_counted, {"candle"}),
        (late_trades_are_lost, {"candle"}),
        (windows_end_a_moment_later, {"trade_count", "volume"}),
    ],
)
def test_a_worker_with_a_mistake_is_found_out(tmp_path, capsys, monkeypatch, mistake, fields):
    mistake(monkeypatch)
    status, found = verified(tmp_path, capsys, a_log())
    assert status == 1
    assert found >= fields
