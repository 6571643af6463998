"""What a script may give for a time and for a number, and what it is told of anything else."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashi.contracts.errors import ContractError
from ashi.contracts.timeframe import Timeframe
from ashi_series.script_values import amount, time_us, timeframe_of

MINUTE_US = 60_000_000


@pytest.mark.parametrize(
    ("ts", "expected"),
    [
        (1_723_161_239, 1_723_161_239_000_000),
        (1_723_161_239.25, 1_723_161_239_250_000),
        (1_723_161_239_870, 1_723_161_239_870_000),
        (1_723_161_239_870.5, 1_723_161_239_870_500),
        (1_723_161_239_870_123, 1_723_161_239_870_123),
        (Decimal("1723161239.870123"), 1_723_161_239_870_123),
        (np.int64(1_723_161_239_870), 1_723_161_239_870_000),
        (np.float64(1_723_161_239.25), 1_723_161_239_250_000),
        (1_000_000_000, 1_000_000_000_000_000),
    ],
)
def test_the_size_of_a_time_tells_its_unit(ts: Any, expected: int) -> None:
    assert time_us(ts) == expected


@given(st.integers(1_000_000_060, 9_000_000_000), st.floats(0, 60, exclude_max=True))
def test_a_time_in_floating_seconds_stays_in_its_minute(minute: int, seconds: float) -> None:
    start = minute - minute % 60
    ts = start + seconds
    if ts < start + 60:  # else the sum itself was rounded up into the next one
        assert time_us(ts) // MINUTE_US * MINUTE_US == start * 1_000_000
        assert abs(time_us(ts) - ts * 1_000_000) <= 1


@pytest.mark.parametrize(
    ("ts", "told"),
    [
        (1_723_161_239_870_123_456, "looks like nanoseconds"),
        (0, "between 2001 and 2255"),
        (-1_723_161_239, "between 2001 and 2255"),
        (10**400, "between 2001 and 2255"),
        pytest.param(10**5_000, "between 2001 and 2255", id="so many digits"),
        (Decimal("1E+5000"), "between 2001 and 2255"),
        (Decimal("-1E+999999999999"), "between 2001 and 2255"),
        (Decimal("NaN"), "ts NaN is not a time"),
        (Decimal("sNaN"), "ts sNaN is not a time"),
        (1e308, "between 2001 and 2255"),
        (float("nan"), "ts nan is not a time"),
        (float("inf"), "ts inf is not a time"),
        ("1723161239", "ts '1723161239' is not a number"),
        (True, "ts True is not a number"),
        (None, "ts None is not a number"),
        (datetime(2024, 8, 9, tzinfo=UTC), "is not a number: give seconds or milliseconds"),
    ],
)
def test_what_is_no_time_is_told(ts: Any, told: str) -> None:
    with pytest.raises(ContractError, match=told):
        time_us(ts)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1, "0.1"),
        (8_763_519, "8763519"),
        ("61837.63", "61837.63"),
        (Decimal("1E-8"), "1E-8"),
        (1e-08, "1E-8"),
        (np.float32(0.1), "0.1"),
        (np.float64(0.1), "0.1"),
        (np.int64(7), "7"),
        (0, "0"),
    ],
)
def test_numbers_are_taken_exactly_floats_as_they_are_shown(value: Any, expected: str) -> None:
    assert amount("price", value) == Decimal(expected)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("nan"), "price NaN is not a finite number"),
        (Decimal("Infinity"), "price Infinity is not a finite number"),
        (Decimal("sNaN"), "price sNaN is not a finite number"),
        pytest.param(10**5_000, "has 5001 digits; at most 38", id="so many digits"),
        (-1, "price -1 is negative"),
        (-0.5, "price -0.5 is negative"),
        ("-1", "price -1 is negative"),
        ("1,5", "price '1,5' is not a number in plain notation"),
        ("", "price '' is not a number"),
        (1e60, "has 61 digits; at most 38"),
        (None, "price None is not a number"),
        (True, "price True is not a number"),
        (Fraction(1, 3), "is not a decimal number"),
    ],
)
def test_what_is_no_amount_is_told(value: Any, told: str) -> None:
    with pytest.raises(ContractError, match=told):
        amount("price", value)


def test_a_timeframe_is_seconds_or_text() -> None:
    assert timeframe_of(60) == timeframe_of("1m") == timeframe_of(Timeframe(MINUTE_US)) == Timeframe(MINUTE_US)
    assert timeframe_of(86_400) == Timeframe.parse("1d")
    for wrong in (0, -60, 7 * 86_400, 61, 0.5):
        with pytest.raises(ContractError, match="timeframe"):
            timeframe_of(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("zero", [-0.0, "-0", Decimal("-0.0")])
def test_a_zero_has_no_sign(zero: Any) -> None:
    assert not amount("size", zero).is_signed()
