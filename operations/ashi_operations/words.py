"""Times and numbers as a tired person reads them."""

from __future__ import annotations

from typing import Final

from ashi.contracts.timeframe import SECOND_US

_UNITS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def span(seconds: float) -> str:
    """`0.3 s`, `42 s`, `5 min`, `3.2 h`, `12 d`."""
    if seconds < 0:
        return f"-{span(-seconds)}"
    for length, unit in _UNITS:
        if seconds >= 2 * length:
            count = seconds / length
            return f"{count:.0f} {unit}" if count >= 10 or unit == "min" else f"{count:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def span_us(microseconds: int) -> str:
    """`span` of µs."""
    return span(microseconds / SECOND_US)


def named(names: list[str], most: int = 3) -> str:
    """The first few of some names: `a, b, c and 4 more`."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most:,} more"
