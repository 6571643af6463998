"""What a backtest gives, and the file of it that the chart can show (`ashi.backtest.v1`)."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from decimal import Context, Decimal
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec

from ashi.contracts.candle import encode_candle
from ashi.contracts.decimals import format_decimal
from ashi.contracts.errors import UsageError
from ashi.contracts.signal import encode_signal
from ashi_strategies.backtest.summary import LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.signal import Signal
    from ashi_strategies.backtest.account import ClosedTrade
    from ashi_strategies.backtest.checks import CheckName, Finding
    from ashi_strategies.backtest.simulation import EquityPoint
    from ashi_strategies.backtest.summary import Summary
    from ashi_strategies.series_name import SeriesName

BACKTEST_SCHEMA: Final = "ashi.backtest.v1"

_SHOWN: Final = Context(prec=16)
"""So many digits of simulated amounts are written. Prices and signals are written whole."""


@dataclass(frozen=True, slots=True)
class BacktestResult:
    """What came of a run.

    Attributes:
        strategy: its name with its parameters.
        series: what it was given, and how many candles of each it decides by.
        begin: close time of the first step that could give a signal, µs; `end` of the last.
        candles: of all series in this time, without those to start with.
        candles_incomplete: of these, those that may lack trades as far as their feeds have said.
        candles_missing: windows between two candles of a series that have none.
        signals: all of them, in order.
        trades: positions of the simulation; `equity` what its accounts were worth.
        notes: what was left out, and what else to know.
        checks: the names of those that were made.
        findings: what they found; None where none was made.

    """

    strategy: str
    series: Mapping[SeriesName, int]
    begin: int
    end: int
    candles: int
    candles_incomplete: int
    candles_missing: int
    signals: Sequence[Signal]
    trades: Sequence[ClosedTrade]
    equity: Sequence[EquityPoint]
    summary: Summary
    notes: Sequence[str]
    checks: Sequence[CheckName]
    findings: Sequence[Finding] | None


class ResultFile:
    """Writes the file: candles while they pass by, the rest at the end. It appears at its path when it is whole."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError when nothing can be written there."""
        self._path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}")
        self._separator = b""
        try:
            self._file: IO[bytes] = self._partial.open("wb")
        except OSError as error:
            raise self._refused(error) from error
        self._write(b'{"schema":"%s","label":%s,"candles":[' % (BACKTEST_SCHEMA.encode(), msgspec.json.encode(LABEL)))

    def add(self, candle: Candle) -> None:
        """Write the next candle, as a message of `candles`."""
        self._write(self._separator + encode_candle(candle))
        self._separator = b",\n"

    def finish(self, result: BacktestResult) -> None:
        """Write all that is no candle, and put the file in its place."""
        fields: dict[str, Any] = {
            "strategy": result.strategy,
            "series": [{**key._asdict(), "startup_candles": count} for key, count in result.series.items()],
            "begin": result.begin,
            "end": result.end,
            "candles_incomplete": result.candles_incomplete,
            "candles_missing": result.candles_missing,
            "signals": [msgspec.Raw(encode_signal(signal)) for signal in result.signals],
            "trades": [_plain(_fields_of(trade)) for trade in result.trades],
            "equity": [[point.time, _shown(point.equity)] for point in result.equity],
            "summary": _plain({**_fields_of(result.summary), "drawdown": _plain(result.summary.drawdown._asdict())}),
            "notes": list(result.notes),
            "checks": list(result.checks),
            "findings": result.findings,
        }
        self._write(b"]," + msgspec.json.encode(fields)[1:] + b"\n")
        try:
            self._file.close()
            self._partial.replace(self._path)
        except OSError as error:
            raise self._refused(error) from error

    def abandon(self) -> None:
        """Leave no file behind, if it is not finished."""
        self._file.close()
        with suppress(FileNotFoundError):
            self._partial.unlink()

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> UsageError:
        return UsageError(f"the backtest cannot be written to {self._path}: {error.strerror or error}")


def _fields_of(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _shown(value) if isinstance(value, Decimal) else value for name, value in fields.items()}


def _shown(value: Decimal) -> str:
    return format_decimal(_SHOWN.plus(value))
