"""What somebody writes who has an idea: a class with `startup_candles` and `on_candle`.

    class Breakout(Strategy):
        length: int = 20

        @property
        def startup_candles(self) -> int:
            return self.length + 1

        def on_candle(self, candle: Candle, series: StrategySeries) -> Target | None:
            before = series.highs()[:-1]
            return long("a new high") if series.closes()[-1] > before.max() else None

The one rule, by which signals are the same in a backtest, live, and after a restart or a correction: **a strategy knows
only the last `startup_candles` candles of each of its series, and what it has kept in itself since that many candles.**
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, ForwardRef, dataclass_transform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap
    from ashi_series.series import SeriesView
    from ashi_strategies.handed import StrategySeries
    from ashi_strategies.target import Target


@dataclass_transform(kw_only_default=True)
@dataclasses.dataclass(kw_only=True, eq=False)
class Strategy(ABC):
    """A strategy. Its annotated attributes are its parameters, as of a dataclass: `length: int = 20`.

    They are given by keyword, are part of its name (`breakout(length=20)`), and must not change afterwards. What a
    strategy keeps for itself it makes in `__post_init__`, which may also refuse parameters with UsageError.

    Attributes:
        name: what it is called; if a class does not say, the class's name in small letters (`MaCross`: `ma_cross`).
        symbols_together: whether one instance gets all the symbols, as for a spread. False: each symbol has an instance
            of its own, which never sees another symbol.
        symbols: those it gets candles of, `venue:MARKET`.
        timeframes: those it gets candles in. A class says how many it needs, and which if it is not told others.

    """

    name: ClassVar[str] = ""
    symbols_together: ClassVar[bool] = False

    symbols: tuple[str, ...]
    timeframes: tuple[str, ...] = ("1m",)

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Make a dataclass of it."""
        super().__init_subclass__(**arguments)
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        for field in dataclasses.fields(cls):
            if field.name in cls.__dict__ and field.name not in inspect.get_annotations(cls):
                # `timeframes = ("5m", "1h")` is another default, also of somebody who leaves the annotation out.
                cls.__annotations__[field.name] = _inherited(cls, field.name)
        dataclasses.dataclass(kw_only=True, eq=False)(cls)

    @property
    @abstractmethod
    def startup_candles(self) -> int | Mapping[str, int]:
        """How many candles of each series it decides by, at least 1; or of each timeframe: `{"5m": 50, "1h": 9}`.

        Exactly so many it is handed, the newest, never fewer. What it keeps in itself must be forgotten after as many.
        """

    @abstractmethod
    def on_candle(self, candle: Candle, series: StrategySeries) -> Target | None:
        """A candle has closed. `series` ends with it; None: nothing to say, the target before holds.

        It is called for each candle once, in the order (close time, timeframe, symbol). Of the other series
        (`series.of(…)`) all is there that has closed at that time; one whose candle was awaited in vain ends earlier.
        """

    def on_correction(self, candle: Candle, series: SeriesView) -> None:  # noqa: B027  (there is nothing one must do)
        """A candle that was handed out before has been corrected, or has come late. For logs and metrics.

        The strategy has been run again by then, from that candle on and in a new instance; the one that goes on is
        told. `series` is that of the candle, up to the last one that was handed out. What is kept here is not there
        after a restart, so no signal may depend on it; the same is true of `on_gap`.
        """

    def on_gap(self, gap: FeedGap) -> None:  # noqa: B027
        """A feed says that trades of one of the symbols may be missing, or are there now. For logs and metrics."""


def _inherited(cls: type, name: str) -> Any:
    """The annotation of a base class, to be read where it was written."""
    owner = next(base for base in cls.__mro__ if name in inspect.get_annotations(base))
    annotation = inspect.get_annotations(owner)[name]
    return ForwardRef(annotation, module=owner.__module__) if isinstance(annotation, str) else annotation
