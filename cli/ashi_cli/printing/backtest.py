"""The summary of a backtest, for people: a label, what was run, the figures, and what the checks found."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING

from ashi.contracts.timeframe import format_time
from ashi_strategies.backtest.account import MONEY
from ashi_strategies.backtest.checks import CHECKS
from ashi_strategies.backtest.summary import LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ashi_strategies.backtest.result import BacktestResult

_WIDTH = 12
_CENT = Decimal("0.01")


def print_backtest(result: BacktestResult) -> None:
    """Print it to stdout."""
    print(LABEL)
    for name, text in _lines(result):
        print(f"{name:<{_WIDTH}}{text}".rstrip())
    for note in result.notes:
        print(f"note: {note}")
    for finding in result.findings or ():
        print(f"WRONG: {finding.text}")


def _lines(result: BacktestResult) -> Iterator[tuple[str, str]]:
    summary = result.summary
    yield "strategy", result.strategy
    yield "series", ", ".join(f"{key.symbol} {key.timeframe}" for key in result.series)
    lacking = f", {result.candles_incomplete:,} may lack trades" if result.candles_incomplete else ""
    begin, end = format_time(result.begin), format_time(result.end)
    yield "candles", f"{result.candles:,} closed from {begin} to {end} (UTC){lacking}"
    if result.candles_missing:
        yield "", f"{result.candles_missing:,} windows in between have no candle"
    targets = Counter(signal.target for signal in result.signals)
    told = ", ".join(f"{targets[target]:,} {target}" for target in ("long", "short", "flat") if targets[target])
    yield "signals", f"{len(result.signals):,}" + (f": {told}" if told else "")
    yield "trades", f"{summary.trades:,}" + (f", {summary.wins:,} with a profit" if summary.trades else "")
    if summary.best is not None and summary.worst is not None and summary.mean_gain is not None:
        spread = f"best {_percent(summary.best)}, worst {_percent(summary.worst)}, mean {_percent(summary.mean_gain)}"
        factor = "" if summary.profit_factor is None else f", profit factor {_money(summary.profit_factor)}"
        yield "", spread + factor
    yield "return", f"{_percent(summary.total_return)} after fees; the market did {_percent(summary.market_return)}"
    yield "equity", f"{_money(summary.capital)} to {_money(summary.final_equity)}, fees {_money(summary.fees)}"
    yield "drawdown", _drawdown(result)
    yield "in market", f"{_percent(summary.exposure, sign='')} of the candles"
    if summary.ruined:
        yield "ruined", ", ".join(summary.ruined)
    yield "checks", _checks(result)


def _drawdown(result: BacktestResult) -> str:
    drawdown = result.summary.drawdown
    if drawdown.peak_at is None or drawdown.low_at is None:
        return "none"
    peak, low = format_time(drawdown.peak_at), format_time(drawdown.low_at)
    recovered = drawdown.recovered_at
    again = "not made up for" if recovered is None else f"made up for at {format_time(recovered)}"
    return f"{_percent(drawdown.depth, sign='')} from {peak} to {low}, {again}"


def _checks(result: BacktestResult) -> str:
    if result.findings is None:
        return "not made"
    if result.findings:
        return "FAILED: live it would have given other signals, see below"
    left_out = ", ".join(name for name in CHECKS if name not in result.checks)
    return f"passed, but {left_out} was left out" if left_out else "passed"


def _percent(part: Decimal, sign: str = "+") -> str:
    return f"{MONEY.multiply(part, Decimal(100)).quantize(_CENT, context=MONEY):{sign},} %"


def _money(amount: Decimal) -> str:
    return f"{amount.quantize(_CENT, context=MONEY):,}"
