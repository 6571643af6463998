"""What a script gives for a time, a price or a timeframe, and what it is in Ashi: µs, exact decimals, `Timeframe`."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from numbers import Integral, Real
from typing import Final, TypeAlias

from ashi.contracts.decimals import check_amount, parse_decimal
from ashi.contracts.errors import ContractError, UsageError
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.trade import EARLIEST_US, LATEST_US, MAX_ID_LENGTH

Number: TypeAlias = "int | float | Decimal"
Amount: TypeAlias = "Number | str"
AnyTimeframe: TypeAlias = "int | str | Timeframe"
"""Seconds, or `1m`."""

_FACTORS: Final = (1_000_000, 1_000, 1)
"""From seconds, milliseconds and microseconds to µs."""
_MOST_SHOWN: Final = 10**60
"""Python refuses to write numbers of thousands of digits."""


def time_us(ts: Number) -> int:
    """The time in µs of one in seconds, milliseconds or microseconds since the epoch: its size tells which.

    From 2001 to 2255 no number is a time in two of these units. A fraction of a µs is cut off, so that no time reaches
    a window that begins after it. Raises ContractError for what is no such time.
    """
    if not is_number(ts):
        raise ContractError(f"ts {ts!r} is not a number: give seconds or milliseconds since the epoch")
    if not (isinstance(ts, Integral) or (ts.is_finite() if isinstance(ts, Decimal) else math.isfinite(ts))):
        raise ContractError(f"ts {ts} is not a time: give seconds or milliseconds since the epoch")
    number = int(ts) if isinstance(ts, Integral) else ts
    for factor in _FACTORS:
        time = int(number * factor) if 0 < number <= LATEST_US else 0
        if EARLIEST_US <= time <= LATEST_US:
            return time
    if EARLIEST_US * 1_000 <= number <= LATEST_US * 1_000:
        raise ContractError(f"ts {ts} looks like nanoseconds: give seconds or milliseconds since the epoch")
    shown = ts if -_MOST_SHOWN < number < _MOST_SHOWN else "of so many digits"
    raise ContractError(f"ts {shown} is not a time in seconds or milliseconds since the epoch, between 2001 and 2255")


def amount(field: str, value: Amount) -> Decimal:
    """A price or a size, exactly; of a float the shortest decimal that is that float, which is what `print` shows.

    Raises ContractError, which names `field`, for what is no number, not finite, negative or longer than 38 digits.
    """
    if isinstance(value, str):
        exact = parse_decimal(field, value)
    elif isinstance(value, Decimal):
        exact = value
    elif not is_number(value):
        raise ContractError(f"{field} {value!r} is not a number: give a float, a str or a Decimal")
    elif isinstance(value, Integral):
        exact = Decimal(int(value))
    else:
        try:
            exact = Decimal(str(value))  # what repr is, but for NumPy's numbers
        except InvalidOperation:
            raise ContractError(
                f"{field} {value!r} is not a decimal number: give a float, a str or a Decimal"
            ) from None
    return check_amount(field, exact) or exact.copy_abs()  # -0.0 is no other size than 0


def check_side_and_id(side: object, trade_id: object) -> None:
    """Raise ContractError for a taker's side that is none, and UsageError for a trade's id that is none."""
    if not (side is None or (isinstance(side, str) and side in {"buy", "sell"})):
        raise ContractError(f"side {side!r:.80} is not a side: give 'buy' or 'sell', the taker's, or leave it out")
    if not (trade_id is None or (isinstance(trade_id, str) and 0 < len(trade_id) <= MAX_ID_LENGTH)):
        raise UsageError(f"trade_id {trade_id!r:.80} must be a str of 1 to {MAX_ID_LENGTH} characters")


def is_number(value: object) -> bool:
    """Whether it is a number as scripts have them: float, int, Decimal, NumPy's; neither a bool nor text."""
    return isinstance(value, (Real, Decimal)) and not isinstance(value, bool)


def timeframe_of(timeframe: AnyTimeframe) -> Timeframe:
    """A timeframe that is given in seconds, as text or as itself. Raises ContractError."""
    if isinstance(timeframe, Timeframe):
        return timeframe
    if isinstance(timeframe, str):
        return Timeframe.parse(timeframe)
    if isinstance(timeframe, bool) or not isinstance(timeframe, Integral):
        raise ContractError(f"timeframe {timeframe!r} is not a whole number of seconds: give 60, or text, '1m'")
    return Timeframe.parse(f"{timeframe}s")
