"""Timeframes: the lengths of candles, written `1s`, `15m`, `1h`, `1d`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from ashi.contracts.errors import ContractError

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US
MICROSECONDS_PER_UNIT: Final = {"s": SECOND_US, "m": MINUTE_US, "h": HOUR_US, "d": DAY_US}
SHORTEST_US: Final = SECOND_US
LONGEST_US: Final = DAY_US

_TEXT = re.compile(r"([1-9][0-9]{0,5})([smhd])", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Timeframe:
    """A candle's length: `length_us` microseconds, aligned to the epoch in UTC.

    Two texts of one length (`60s`, `1m`) are the same timeframe and are written in the larger unit.
    """

    length_us: int

    @classmethod
    @lru_cache(maxsize=1_000)  # the same few in every message
    def parse(cls, text: str) -> Timeframe:
        """Read `1m`. Raises ContractError for anything but 1s to 1d that divides a day evenly."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ContractError(f"timeframe {text!r} is not a number and a unit: write 1s, 15m, 1h or 1d")
        length_us = int(match[1]) * MICROSECONDS_PER_UNIT[match[2]]
        if not SHORTEST_US <= length_us <= LONGEST_US:
            raise ContractError(f"timeframe {text!r} is out of range: it must be from 1s to 1d")
        if LONGEST_US % length_us:
            raise ContractError(
                f"timeframe {text!r} does not divide a day evenly, so its candles would not line up with UTC days"
            )
        return cls(length_us)

    def __str__(self) -> str:
        for unit in ("d", "h", "m"):
            count, rest = divmod(self.length_us, MICROSECONDS_PER_UNIT[unit])
            if not rest:
                return f"{count}{unit}"
        return f"{self.length_us // SHORTEST_US}s"

    def open_time(self, time_us: int) -> int:
        """Start (µs, inclusive) of the window that `time_us` falls into."""
        return time_us - time_us % self.length_us


def parse_timeframes(text: str) -> tuple[Timeframe, ...]:
    """Read `1m,5m,1h`, finest first. Raises ContractError when one is not a multiple of the finest."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ContractError("no timeframes given: write them as 1m,5m,1h")
    timeframes = sorted(Timeframe.parse(name) for name in names)
    if len(set(timeframes)) < len(timeframes):
        raise ContractError(f"timeframes {text!r}: one is given twice")
    finest = timeframes[0]
    for timeframe in timeframes[1:]:
        if timeframe.length_us % finest.length_us:
            raise ContractError(
                f"timeframe {timeframe} is not a multiple of the finest, {finest}: "
                "trades are folded once per finest window and those folds are merged"
            )
    return tuple(timeframes)


def format_time(time_us: int, *, with_seconds: bool = True) -> str:
    """`2024-08-09 00:01:00` in UTC, of a time in µs since the epoch."""
    time = datetime.fromtimestamp(time_us // 1_000_000, UTC)
    return time.strftime("%Y-%m-%d %H:%M:%S" if with_seconds else "%Y-%m-%d %H:%M")
