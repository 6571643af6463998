"""What a script gives for a time, a price or a timeframe, and what it is in Ashi: µs, exact decimals, `Timeframe`."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from numbers import Integral, Real
from typing import Final, TypeAlias

from ashi.contracts.decimals import check_amount, parse_decimal
from ashi.contracts.errors import ContractError
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.trade import EARLIEST_US, LATEST_US

Number: TypeAlias = "int | float | Decimal"
Amount: TypeAlias = "Number | str"
AnyTimeframe: TypeAlias = "int | str | Timeframe"
"""Seconds, or `1m`."""

_FACTORS: Final = (1_000_000, 1_000, 1)
"""From seconds, milliseconds and microseconds to µs."""


def time_us(ts: Number) -> int:
    """The time in µs of one in seconds, milliseconds or microseconds since the epoch: its size tells which.

    From 2001 to 2255 no number is a time in two of these units. A fraction of a µs is cut off, so that no time reaches
    a window that begins after it. Raises ContractError for what is no such time.
    """
    if isinstance(ts, bool) or not isinstance(ts, (Real, Decimal)):
        raise ContractError(f"ts {ts!r} is no number: give seconds or milliseconds since the epoch")
    if not isinstance(ts, Integral) and not math.isfinite(ts):
        raise ContractError(f"ts {ts} is no time: give seconds or milliseconds since the epoch")
    number = int(ts) if isinstance(ts, Integral) else ts
    for factor in _FACTORS:
        time = int(number * factor) if abs(number) <= LATEST_US else 0
        if EARLIEST_US <= time <= LATEST_US:
            return time
    if EARLIEST_US <= number // 1_000 <= LATEST_US:
        raise ContractError(f"ts {ts} looks like nanoseconds: give seconds or milliseconds since the epoch")
    raise ContractError(f"ts {ts} is not a time in seconds or milliseconds since the epoch, between 2001 and 2255")


def amount(field: str, value: Amount) -> Decimal:
    """A price or a size, exactly; of a float the shortest decimal that is that float, which is what `print` shows.

    Raises ContractError, which names `field`, for what is no number, not finite, negative or longer than 38 digits.
    """
    if isinstance(value, str):
        return check_amount(field, parse_decimal(field, value))
    if isinstance(value, Decimal):
        return check_amount(field, value)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ContractError(f"{field} {value!r} is no number: give a float, a str or a Decimal")
    try:
        exact = Decimal(str(value))  # what repr is, but for NumPy's numbers
    except InvalidOperation:
        raise ContractError(f"{field} {value!r} is no decimal number: give a float, a str or a Decimal") from None
    return check_amount(field, exact)


def timeframe_of(timeframe: AnyTimeframe) -> Timeframe:
    """A timeframe that is given in seconds, as text or as itself. Raises ContractError."""
    if isinstance(timeframe, Timeframe):
        return timeframe
    return Timeframe.parse(timeframe if isinstance(timeframe, str) else f"{timeframe}s")
