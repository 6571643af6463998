"""The series of which there is no candle at all, as of a symbol that is written wrong: told until the first comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.contracts.candle import Candle
from ashi.runtime.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ashi.runtime.health import Health
    from ashi_strategies.live.feed import Item
    from ashi_strategies.series_name import SeriesName

ABOUT_EMPTY: Final = "no candles"

_log = get_logger(__name__)


class EmptySeries:
    """Warns of them once, and says at `/ready` which are left."""

    def __init__(self, health: Health, empty: Iterable[SeriesName]) -> None:
        """`empty`: symbol and timeframe of each."""
        self._health = health
        self._left = list(empty)
        self._tell()
        if self._left:
            _log.warning(
                "no candle was found of some series, so that the strategy says nothing of them, and nothing at all "
                "where it wants them together: is the symbol written as it stands in the candles, is the timeframe "
                "among ASHI_TIMEFRAMES, and is the market read?",
                of=[" ".join(name) for name in self._left],
            )

    def note(self, items: Iterable[Item]) -> None:
        """Take note of what has come."""
        if not self._left:
            return
        come = {(item.symbol, item.timeframe) for item in items if isinstance(item, Candle)}
        self._left = [name for name in self._left if name not in come]
        self._tell()

    def _tell(self) -> None:
        told = f"there is no candle so far of {', '.join(' '.join(name) for name in self._left)}"
        self._health.set_remark(ABOUT_EMPTY, told if self._left else None)
