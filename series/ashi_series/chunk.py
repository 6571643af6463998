"""The memory of a series: candles to which only is appended, and their columns, filled as far as they were asked for.

What a column gives out is a view of its array and never changes: a candle that is appended stands behind it,
and where one has to be replaced, or the oldest have to go, a new chunk is made and the old one stays with whoever has a
view of it. So a column costs one number for each candle, however often it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ashi.contracts.candle import DECIMAL_FIELDS, Candle
from ashi.contracts.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import TypeAlias

    import numpy as np
    from numpy.typing import NDArray

    Column: TypeAlias = NDArray[np.float64] | NDArray[np.int64]

INTEGER_FIELDS: Final = ("open_time", "close_time", "trade_count", "version")
COLUMNS: Final = ("open_time", "close_time", *DECIMAL_FIELDS, "trade_count", "version")
"""The fields of a candle that are columns, in the order in which tables have them."""


class Chunk:
    """Candles by open time, the oldest first."""

    __slots__ = ("_columns", "candles", "capacity")

    def __init__(self, candles: list[Candle], capacity: int) -> None:
        """`capacity`: so many candles fit in."""
        self.candles = candles
        self.capacity = capacity
        self._columns: dict[str, tuple[Any, int]] = {}

    def column(self, field: str, start: int, end: int) -> Any:
        """Of the candles from `start` to `end` one field, as a read-only array that never changes."""
        array, filled = self._columns.get(field) or (self._new_column(field), 0)
        if filled < end:
            convert = int if field in INTEGER_FIELDS else float
            if filled + 1 == end:
                array[filled] = convert(getattr(self.candles[filled], field))
            else:
                array[filled:end] = [convert(getattr(candle, field)) for candle in self.candles[filled:end]]
            self._columns[field] = array, end
        view = array[start:end]
        view.flags.writeable = False
        return view

    def rest(self, start: int) -> Chunk:
        """A new one of the candles from `start` on."""
        rest = Chunk(self.candles[start:], self.capacity)
        for field, (array, filled) in self._columns.items():
            if filled > start:
                copy = rest._new_column(field)
                copy[: filled - start] = array[start:filled]
                rest._columns[field] = copy, filled - start
        return rest

    def changed(self, start: int, place: int, replaced: int, candle: Candle) -> Chunk:
        """A new one from `start` on, with `candle` in the place of `replaced` candles, one or none, at `place`."""
        changed = self.rest(start)
        place -= start
        changed.candles[place : place + replaced] = [candle]
        changed._columns = {field: (array, min(filled, place)) for field, (array, filled) in changed._columns.items()}
        return changed

    def _new_column(self, field: str) -> Any:
        numpy = import_numpy()
        if field not in COLUMNS:
            raise UsageError(f"{field!r} is not a column of a series: there are {', '.join(COLUMNS)}")
        return numpy.empty(self.capacity, dtype=numpy.int64 if field in INTEGER_FIELDS else numpy.float64)


def import_numpy() -> ModuleType:
    """NumPy. Raises UsageError that names what to install."""
    try:
        import numpy
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        raise UsageError("columns of a series need NumPy: pip install 'ashi-candles[series]'") from error
    return numpy


def to_pandas(columns: dict[str, Column], index: Sequence[str]) -> Any:
    """A DataFrame, with the times of `index` as UTC. Raises UsageError that names what to install."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        if error.name != "pandas":
            raise
        raise UsageError("to_pandas needs pandas: pip install pandas") from error
    table = dict(columns) | {name: pandas.to_datetime(columns[name], unit="us", utc=True) for name in index}
    return pandas.DataFrame(table).set_index(index[0])


def to_polars(columns: dict[str, Column], times: Sequence[str]) -> Any:
    """A DataFrame, with `times` as UTC. Raises UsageError that names what to install."""
    try:
        import polars
    except ModuleNotFoundError as error:
        if error.name != "polars":
            raise
        raise UsageError("to_polars needs Polars: pip install polars") from error
    return polars.DataFrame(columns).with_columns(
        polars.from_epoch(name, time_unit="us").dt.replace_time_zone("UTC") for name in times
    )
