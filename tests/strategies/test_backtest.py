"""Backtests as a whole: signals of the live engine, figures, checks that find what is planted."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from backtest_samples import MINUTE, OTHER, START, SYMBOL, WatchedCandles, make_candle, series_of

from ashi.contracts import Candle
from ashi.contracts.candle import candle_fields
from ashi.contracts.errors import StrategyError, UsageError
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.signal import decode_signal
from ashi_sinks.registry import make_sink, open_reader
from ashi_strategies import Strategy, StrategySeries, Target, flat, long, plans_of, short
from ashi_strategies.backtest.account import MONEY
from ashi_strategies.backtest.backtest import BacktestRequest, run_backtest
from ashi_strategies.backtest.in_memory import CandlesInMemory
from ashi_strategies.backtest.plot import Plot
from ashi_strategies.backtest.result import BacktestResult, ResultFile
from ashi_strategies.backtest.sources import CandleSource
from ashi_strategies.series_name import SeriesName

CLOSES = [100 + (n * 37) % 23 for n in range(400)]
"""Goes up and down, and never twice alike for long."""


class Rises(Strategy):
    """Long after a rise, flat after a fall."""

    @property
    def startup_candles(self) -> int:
        return 2

    def on_candle(self, candle: Candle, series: StrategySeries) -> Target | None:
        return long("up") if series[-1].close > series[-2].close else flat("down")


class Counts(Strategy):
    """Remembers how many candles it has seen, however long ago."""

    every: int = 7

    def __post_init__(self) -> None:
        self._seen = 0

    @property
    def startup_candles(self) -> int:
        return 3

    def on_candle(self, candle: Candle, series: StrategySeries) -> Target | None:
        self._seen += 1
        return None if self._seen % self.every else long()


class ReadsAFile(Strategy):
    """Knows the next close from elsewhere."""

    next_close: ClassVar[dict[int, Decimal]] = {}

    @property
    def startup_candles(self) -> int:
        return 1

    def on_candle(self, candle: Candle, series: StrategySeries) -> Target | None:
        following = self.next_close.get(candle.close_time)
        return None if following is None else long() if following > candle.close else flat()


class DigsInMemory(Strategy):
    """Finds the rows that the store's reader has fetched and not given yet."""

    @property
    def startup_candles(self) -> int:
        return 1

    def on_candle(self, candle: Candle, series: StrategySeries) -> Target | None:
        if candle.open_time % (10 * MINUTE):
            return None  # the memory of a whole test run is large
        for found in gc.get_objects():
            if type(found) is list and found and type(found[0]) is tuple and found[0][:2] == (SYMBOL, "1m"):
                for row in found:
                    if row[2] == candle.close_time:
                        return long() if Decimal(row[7]) > candle.close else flat()
        return None


class LeavesTraces(Strategy):
    """Each instance says something else than the one before."""

    instances: ClassVar[int] = 0

    def __post_init__(self) -> None:
        type(self).instances += 1
        self._number = self.instances

    @property
    def startup_candles(self) -> int:
        return 1

    def on_candle(self, candle: Candle, series: StrategySeries) -> Target | None:
        return long(str(self._number))


class Sundays(Strategy):
    """Goes by the calendar, which comes again after weeks; and by the year, which does not."""

    by_year: bool = False

    @property
    def startup_candles(self) -> int:
        return 1

    def on_candle(self, candle: Candle, series: StrategySeries) -> Target | None:
        day = candle.open_time // (24 * 60 * MINUTE)
        return long(str(day) if self.by_year else str(day % 7))


class Pair(Strategy):
    """Two symbols and two timeframes; tells what it was handed."""

    symbols_together = True
    timeframes = ("1m", "5m")

    @property
    def startup_candles(self) -> Mapping[str, int]:
        return {"1m": 3, "5m": 2}

    def on_candle(self, candle: Candle, series: StrategySeries) -> Target | None:
        handed = [series.of(symbol, timeframe) for symbol in self.symbols for timeframe in self.timeframes]
        seen = ",".join(str((view[-1].close_time - START) // MINUTE) for view in handed)
        return (long if candle.close > view_mean(series) else short)(seen)


def view_mean(view: Sequence[Candle]) -> Decimal:
    return sum((candle.close for candle in view), Decimal(0)) / len(view)


class Fails(Rises):
    """Raises at the fifth candle."""

    def on_candle(self, candle: Candle, series: StrategySeries) -> Target | None:
        if candle.open_time == START + 4 * MINUTE:
            raise ZeroDivisionError("planted")
        return None


def backtest(
    source: CandleSource,
    strategy: type[Strategy],
    *,
    symbols: Sequence[str] = (SYMBOL,),
    timeframes: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    watchers: Sequence[Any] = (),
    **wanted: Any,
) -> BacktestResult:
    plans = plans_of(strategy, symbols, timeframes, parameters)
    request = BacktestRequest(
        plans=plans,
        **{"after": None, "until": None, "capital": Decimal(1_000), "fee": Decimal("0.001")} | wanted,
    )
    return asyncio.run(run_backtest(source, request, watchers=watchers))


def test_each_signal_is_that_of_the_last_candles_alone():
    candles = series_of(CLOSES)
    result = backtest(CandlesInMemory(candles), Rises)
    assert [(signal.open_time, signal.target) for signal in result.signals] == [
        (candle.open_time, "long" if candle.close > before.close else "flat")
        for before, candle in pairwise(candles[2:])
    ]
    assert (result.begin, result.end) == (candles[3].close_time, candles[-1].close_time)
    assert result.candles == len(candles) - 3
    assert result.findings == []
    assert {signal.status for signal in result.signals} == {"active"}


def test_a_part_of_the_time_has_the_signals_that_the_whole_has_there():
    source = CandlesInMemory(series_of(CLOSES))
    whole = backtest(source, Rises)
    after, until = START + 50 * MINUTE, START + 90 * MINUTE
    part = backtest(source, Rises, after=after, until=until)
    assert list(part.signals) == [signal for signal in whole.signals if after < signal.close_time <= until]
    assert (part.begin, part.end, part.notes) == (after + MINUTE, until, [])


def test_a_start_that_lacks_candles_before_it_is_told_and_begins_later():
    source = CandlesInMemory(series_of(CLOSES))
    result = backtest(source, Rises, after=START + MINUTE)
    assert result.begin == START + 4 * MINUTE
    [note] = result.notes
    assert "too few from before" in note


def test_figures_come_of_the_signals_and_the_prices_after_them():
    source = CandlesInMemory(series_of([10, 10, 10, 20, 20, 40, 30, 30, 30]))
    result = backtest(source, Rises, capital=Decimal(100), fee=Decimal(0), check=False)
    # Up at the fourth, bought at the fifth's open (20); down at the fifth, sold at the sixth's open (20); up at the
    # sixth, bought at the open of the seventh (40), sold at that of the eighth (30).
    assert [(trade.entry, trade.exit, trade.ended_by) for trade in result.trades] == [
        (20, 20, "signal"),
        (40, 30, "signal"),
    ]
    summary = result.summary
    assert (summary.final_equity, summary.total_return, summary.trades, summary.wins) == (75, Decimal("-0.25"), 2, 0)
    assert summary.market_return == Decimal("0.5")
    assert (summary.drawdown.depth, summary.drawdown.recovered_at) == (Decimal("0.25"), None)
    assert (summary.best, summary.worst) == (0, Decimal("-0.25"))


def test_several_series_come_together_and_never_one_that_closes_later():
    start = START - START % (5 * MINUTE)
    candles = [
        *series_of(CLOSES[:100], start=start),
        *series_of(CLOSES[100:200], start=start, symbol=OTHER),
        *series_of(CLOSES[:20], start=start, timeframe="5m"),
        *series_of(CLOSES[20:40], start=start, timeframe="5m", symbol=OTHER),
    ]
    result = backtest(CandlesInMemory(candles), Pair, symbols=[SYMBOL, OTHER], may_know_date=True)  # it tells the time
    assert result.findings == []
    assert len(result.signals) > 100
    for signal in result.signals:
        assert signal.reason is not None
        now = (signal.close_time - START) // MINUTE
        fives = (signal.close_time - signal.close_time % (5 * MINUTE) - START) // MINUTE
        assert list(map(int, signal.reason.split(","))) == [now, fives, now, fives]
        assert signal.all_closed
    assert {trade.symbol for trade in result.trades} == {SYMBOL, OTHER}


def test_a_series_that_lacks_a_candle_makes_an_incomplete_step_and_is_not_waited_for():
    candles = [
        *series_of(CLOSES[:40], start=START - START % (5 * MINUTE)),
        *series_of(CLOSES[:40], start=START - START % (5 * MINUTE), symbol=OTHER),
    ]
    hole = candles.pop(60)

    class Both(Rises):
        symbols_together = True

    result = backtest(CandlesInMemory(candles), Both, symbols=[SYMBOL, OTHER])
    lacking = [signal for signal in result.signals if not signal.all_closed]
    assert [(signal.symbol, signal.close_time) for signal in lacking] == [(SYMBOL, hole.close_time)]
    assert [signal.close_time for signal in result.signals] == sorted(signal.close_time for signal in result.signals)
    assert (result.candles_missing, result.findings) == (1, [])


def test_symbols_that_are_not_together_are_run_side_by_side():
    first, second = series_of(CLOSES[:60]), series_of(CLOSES[5:65], symbol=OTHER)
    both = backtest(CandlesInMemory([*first, *second]), Rises, symbols=[SYMBOL, OTHER])
    alone = [backtest(CandlesInMemory(candles), Rises, symbols=[candles[0].symbol]) for candles in (first, second)]
    key = lambda signal: (signal.close_time, signal.symbol)  # noqa: E731
    assert sorted(both.signals, key=key) == sorted([*alone[0].signals, *alone[1].signals], key=key)
    assert both.summary.final_equity == MONEY.add(alone[0].summary.final_equity, alone[1].summary.final_equity)
    assert both.summary.capital == 2_000


def test_one_that_remembers_longer_than_it_declares_is_found():
    [finding] = backtest(CandlesInMemory(series_of(CLOSES)), Counts).findings or ()
    assert finding.check == "startup"
    assert "long from an instance that began right before" in finding.text or "no signal from an" in finding.text
    assert f"{SYMBOL} 1m: 3" in finding.text


def test_each_of_a_few_signals_is_checked_where_no_part_of_the_run_is():
    candles = series_of([1 + n % 5 for n in range(2_000)])
    [finding] = backtest(CandlesInMemory(candles), Counts, parameters={"every": 430}).findings or ()
    assert finding.check == "startup"
    assert "gave long at the 1m candle" in finding.text
    assert (finding.open_time - START) // MINUTE % 430 == 1  # the third is the first that is handed out


def test_candles_that_may_lack_trades_are_counted_from_when_it_is_tested():
    gaps = [FeedGap(SYMBOL, START + n * MINUTE, START + n * MINUTE + 1, "lost", 0, "", START) for n in (0, 10, 20)]
    status = FeedStatus(SYMBOL, "connected", START, None, None, None, START, START + 30 * MINUTE)
    result = backtest(WatchedCandles(series_of(CLOSES[:40]), gaps, [status]), Rises)
    assert result.candles_incomplete == 2 + 10  # and those that the feed was not checked for
    assert [signal.open_time for signal in result.signals if signal.is_complete is False] == [
        START + n * MINUTE for n in (10, 20, *range(30, 40))
    ]


def test_one_that_knows_prices_from_elsewhere_is_found():
    candles = series_of(CLOSES)
    ReadsAFile.next_close = {candle.open_time: candle.close for candle in candles}
    [finding] = backtest(CandlesInMemory(candles), ReadsAFile).findings or ()
    assert finding.check == "elsewhere"
    assert backtest(CandlesInMemory(candles), ReadsAFile, check=False).findings is None


def test_one_that_digs_later_candles_out_of_the_reader_is_found(tmp_path):
    url = stored(tmp_path, series_of(CLOSES[:60]))

    async def run() -> BacktestResult:
        request = BacktestRequest(plans_of(DigsInMemory, [SYMBOL]), None, None, Decimal(1), Decimal(0))
        async with open_reader(url) as reader:
            return await run_backtest(reader, request)

    result = asyncio.run(run())
    assert len(result.signals) == 6  # it did look ahead
    [finding] = result.findings or ()
    assert finding.check == "lookahead"


def test_one_that_is_not_the_same_twice_is_found():
    [finding] = backtest(CandlesInMemory(series_of(CLOSES)), LeavesTraces).findings or ()
    assert finding.check == "repeatable"


def test_the_days_of_the_week_may_be_known_and_the_date_where_it_is_allowed():
    source = CandlesInMemory(series_of(CLOSES))
    assert backtest(source, Sundays).findings == []
    [finding] = backtest(source, Sundays, parameters={"by_year": True}).findings or ()
    assert finding.check == "elsewhere"
    allowed = backtest(source, Sundays, parameters={"by_year": True}, may_know_date=True)
    assert (allowed.findings, allowed.checks) == ([], ["startup", "lookahead", "repeatable"])


def test_each_timeframe_of_a_symbol_has_an_account_where_it_is_run_by_itself():
    start = START + MINUTE
    candles = [*series_of(CLOSES[:100], start=start), *series_of(CLOSES[:20], start=start, timeframe="5m")]
    result = backtest(CandlesInMemory(candles), Rises, timeframes=["1m", "5m"])
    assert result.summary.capital == 2_000
    for timeframe in ("1m", "5m"):
        alone = backtest(CandlesInMemory(candles), Rises, timeframes=[timeframe])
        assert [trade for trade in result.trades if trade.timeframe == timeframe] == alone.trades
        assert alone.trades


class ChangesMeanwhile(CandlesInMemory):
    """A store whose candles are corrected after they were read for the first time."""

    def __init__(self, candles: Sequence[Candle]) -> None:
        super().__init__(candles)
        self._later = CandlesInMemory(
            msgspec.structs.replace(candle, close=2 * candle.open - candle.close, version=candle.version + 1)
            for candle in candles
        )
        self._reads = 0

    def read(self, *wanted: Any) -> AsyncIterator[Candle]:
        self._reads += 1
        return super().read(*wanted) if self._reads == 1 else self._later.read(*wanted)


def test_a_store_that_changes_under_the_checks_is_no_mistake_of_the_strategy():
    result = backtest(ChangesMeanwhile(series_of(CLOSES)), Rises)
    assert result.findings is None
    [note] = result.notes
    assert "stored or corrected while the checks read them" in note


def test_many_plans_get_their_own_candles():
    symbols = [f"venue:M{number}" for number in range(30)]
    candles = [candle for n, symbol in enumerate(symbols) for candle in series_of(CLOSES[n : n + 30], symbol=symbol)]
    result = backtest(CandlesInMemory(candles), Rises, symbols=symbols, check=False)
    assert {symbol: sum(one.symbol == symbol for one in result.signals) for symbol in symbols} == dict.fromkeys(
        symbols, 27
    )
    assert result.candles == 27 * len(symbols)


@pytest.mark.parametrize("count", [0, 2])
def test_too_few_candles_are_an_error_that_says_how_many_are_needed(count):
    candles = [*series_of(CLOSES[:count]), *series_of([1], symbol=OTHER)]
    with pytest.raises(UsageError, match=r"too few candles to test rises: \d of binance:ETHUSDT 1m more are needed"):
        backtest(CandlesInMemory(candles), Rises)


def test_what_a_strategy_raises_is_told_with_the_candle():
    with pytest.raises(StrategyError, match="ZeroDivisionError at the 1m candle of binance:ETHUSDT that closed at"):
        backtest(CandlesInMemory(series_of(CLOSES)), Fails)


def stored(folder: Path, candles: Sequence[Candle]) -> str:
    url = f"sqlite:///{folder}/candles.db"

    async def store() -> None:
        sink = make_sink(url)
        await sink.open()
        await sink.write(candles)
        await sink.close()

    asyncio.run(store())
    return url


def test_the_file_holds_candles_and_signals_as_messages_and_the_figures(tmp_path):
    path = tmp_path / "out.json"
    file = ResultFile(path)
    candles = series_of(CLOSES[:30])
    result = backtest(CandlesInMemory(candles), Rises, watchers=[file])
    file.finish(result)
    assert [found.name for found in tmp_path.iterdir()] == ["out.json"]
    written = json.loads(path.read_text())
    assert written["schema"] == "ashi.backtest.v1"
    assert written["label"].startswith("SIMULATION")
    assert written["candles"] == [candle_fields(candle) for candle in candles[3:]]
    assert [decode_signal(json.dumps(signal).encode()) for signal in written["signals"]] == list(result.signals)
    assert written["series"] == [{"symbol": SYMBOL, "timeframe": "1m", "startup_candles": 2}]
    assert (written["begin"], written["end"], written["findings"]) == (result.begin, result.end, [])
    assert written["checks"] == ["startup", "lookahead", "elsewhere", "repeatable"]
    assert {trade["timeframe"] for trade in written["trades"]} == {"1m"}
    assert [Decimal(trade["entry"]) for trade in written["trades"]] == [trade.entry for trade in result.trades]
    assert written["equity"][0] == [result.begin, "1000"]
    assert [time for time, _ in written["equity"]] == sorted({time for time, _ in written["equity"]})
    assert Decimal(written["summary"]["final_equity"]) == pytest.approx(
        result.summary.final_equity, rel=Decimal("1e-15")
    )
    assert set(written["summary"]["drawdown"]) == {"depth", "peak_at", "low_at", "recovered_at"}


def test_a_file_that_is_not_finished_is_not_there(tmp_path):
    path = tmp_path / "out.json"
    path.write_text("what was there before")
    file = ResultFile(path)
    file.add(make_candle(START, 1, 1))
    file.abandon()
    assert [found.name for found in tmp_path.iterdir()] == ["out.json"]
    assert path.read_text() == "what was there before"
    with pytest.raises(UsageError, match="cannot be written to"):
        ResultFile(tmp_path / "no" / "out.json")


TRADED = {SeriesName(SYMBOL, "1m"): SeriesName(SYMBOL, "1m")}


@pytest.mark.processes  # once on a machine: `fc-list`, which tells matplotlib what fonts there are
def test_the_plot_is_a_picture_with_its_label_and_the_same_each_time(tmp_path):
    names = ["plot.svg", "again.svg", "plot.png"]
    plots = [Plot(tmp_path / name, TRADED) for name in names]
    result = backtest(CandlesInMemory(series_of(CLOSES[:60])), Rises, watchers=plots, check=False)
    for plot in plots:
        plot.finish(result)
    svg, again, png = ((tmp_path / name).read_bytes() for name in names)
    assert svg == again
    assert (svg[:5], png[:4]) == (b"<?xml", b"\x89PNG")
    assert b"SIMULATION" in svg
    counted = Counter(signal.target for signal in result.signals)
    assert all(f"{target} ({count})".encode() in svg for target, count in counted.items())


def test_a_plot_of_another_kind_is_refused_before_anything_is_run(tmp_path):
    with pytest.raises(UsageError, match=r"must end with \.svg or \.png"):
        Plot(tmp_path / "plot.gif", TRADED)
    with pytest.raises(UsageError, match="there is no folder"):
        Plot(tmp_path / "no" / "plot.svg", TRADED)
