"""A picture of a backtest: prices with its signals, what its accounts were worth, and how far below their peak.

Floats are good enough here, and only here. Needs matplotlib, of the extra `plot`; no display.
"""

from __future__ import annotations

from array import array
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from ashi.contracts.errors import UsageError
from ashi_strategies.backtest.summary import LABEL
from ashi_strategies.series_name import SeriesName

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ashi.contracts.candle import Candle
    from ashi_strategies.backtest.result import BacktestResult

FORMATS: Final = (".svg", ".png")
MAX_PANELS: Final = 6
"""Of more series than this the others have no panel."""
_MARKERS: Final = {"long": ("^", "#2e7d32"), "short": ("v", "#c62828"), "flat": ("o", "#616161")}
_US: Final = 1e6


class Plot:
    """Closes while they pass by, and the picture at the end."""

    def __init__(self, path: Path, traded: Mapping[SeriesName, SeriesName]) -> None:
        """`traded`: see `playing.traded_series`. Raises UsageError for a name that is no picture's, or in no folder."""
        if path.suffix.lower() not in FORMATS:
            raise UsageError(f"{path} is not the name of a picture: it must end with {' or '.join(FORMATS)}")
        if not path.parent.is_dir():
            raise UsageError(f"the picture cannot be written to {path}: there is no folder {path.parent}")
        self._path = path
        self._traded = traded
        self._drawn = frozenset(traded.values())
        self._closes: dict[SeriesName, tuple[array[float], array[float]]] = {}

    def add(self, candle: Candle) -> None:
        """The next candle of its series; passed over if that is not drawn."""
        key = SeriesName(candle.symbol, candle.timeframe)
        if key not in self._drawn:
            return
        times, closes = self._closes.setdefault(key, (array("d"), array("d")))
        times.append(candle.close_time / _US)
        closes.append(float(candle.close))

    def finish(self, result: BacktestResult) -> None:
        """Draw it. Raises UsageError when nothing can be written there."""
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        series = list(self._closes)[:MAX_PANELS]
        # The same picture for the same backtest: no date, no ids by chance.
        with rc_context({"svg.hashsalt": "ashi", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}):
            figure = Figure(figsize=(11, 2.6 * len(series) + 4), layout="constrained")
            ratios = [3.0] * len(series) + [2.0, 1.0]
            panels = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
            figure.suptitle(f"{result.strategy}\n{LABEL}", fontsize=10)
            for panel, key in zip(panels, series, strict=False):
                self._draw_prices(panel, key, result)
            if more := len(self._closes) - len(series):
                panels[0].set_title(f"{more} more series are not drawn", fontsize=8, loc="right")
            _draw_equity(panels[-2], panels[-1], result)
            metadata = {"Date": None} if self._path.suffix.lower() == ".svg" else None
            try:
                figure.savefig(self._path, dpi=120, metadata=metadata)
            except OSError as error:
                reason = error.strerror or error
                raise UsageError(f"the picture cannot be written to {self._path}: {reason}") from error

    def _draw_prices(self, panel: Any, key: SeriesName, result: BacktestResult) -> None:
        times, closes = self._closes[key]
        signals = [
            signal for signal in result.signals if self._traded[SeriesName(signal.symbol, signal.timeframe)] == key
        ]
        panel.plot([_at(time) for time in times], closes, color="#455a64", linewidth=0.8)
        for target, (marker, color) in _MARKERS.items():
            given = [signal for signal in signals if signal.target == target]
            if given:
                panel.scatter(
                    [_at(signal.close_time / _US) for signal in given],
                    [float(signal.price) for signal in given],
                    marker=marker,
                    color=color,
                    s=28,
                    zorder=3,
                    label=f"{target} ({len(given)})",
                )
        if panel.get_legend_handles_labels()[0]:
            panel.legend(loc="upper left", fontsize=8)
        panel.set_ylabel(f"{key.symbol} {key.timeframe}")


def _draw_equity(panel: Any, below: Any, result: BacktestResult) -> None:
    times = [_at(point.time / _US) for point in result.equity]
    equity = [float(point.equity) for point in result.equity]
    peaks, peak = [], equity[0] if equity else 0.0
    for value in equity:
        peak = max(peak, value)
        peaks.append(peak)
    # Steps: the points are those at which it changed.
    panel.plot(times, equity, color="#1565c0", linewidth=0.9, drawstyle="steps-post")
    panel.set_ylabel("equity (simulated)")
    depths = [-100 * (top - value) / top if top > 0 else 0.0 for top, value in zip(peaks, equity, strict=True)]
    below.fill_between(times, depths, 0, color="#c62828", alpha=0.4, linewidth=0, step="post")
    below.set_ylabel("drawdown, %")


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
