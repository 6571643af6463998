"""The newest candles, and how late they came, by what topic `candles` got lately: pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.decimals import format_decimal
from ashi.contracts.timeframe import SECOND_US, Timeframe
from ashi_operations.status.snapshot import Delay, Newest

if TYPE_CHECKING:
    from collections.abc import Collection

    from ashi.contracts.candle import Candle

KEPT_US: Final = 180 * SECOND_US
"""Delays are of the candles that came within so long."""
MOST_SAMPLES: Final = 200_000


class _Sample(NamedTuple):
    appended_us: int
    after_close_us: int


class CandleWindow:
    """What was appended since `since_us`. Candles come in the order of their partitions."""

    def __init__(self, since_us: int) -> None:
        self._since_us = since_us
        self._newest: dict[tuple[str, str], tuple[Candle, int]] = {}
        self._samples: deque[_Sample] = deque(maxlen=MOST_SAMPLES)

    def take(self, candle: Candle, appended_us: int) -> None:
        """A record of the topic, and when Kafka got it."""
        key = candle.symbol, candle.timeframe
        known = self._newest.get(key)
        if known is not None and candle.open_time < known[0].open_time:
            return  # a correction of one before
        if known is None or candle.open_time > known[0].open_time:
            # One that closed before the reading began may have come before too: this may be its correction.
            if candle.close_time >= self._since_us:
                self._samples.append(_Sample(appended_us, appended_us - candle.close_time))
            self._newest[key] = candle, appended_us
        elif candle.version > known[0].version:
            self._newest[key] = candle, known[1]

    def delay(self, now_us: int, lateness_us: int) -> Delay | None:
        """How late those came that came within `KEPT_US`; None where none did."""
        while self._samples and self._samples[0].appended_us < now_us - KEPT_US:
            self._samples.popleft()
        if not self._samples:
            return None
        late = sorted((sample.after_close_us - lateness_us) / SECOND_US for sample in self._samples)
        return Delay(
            candles=len(late),
            seconds=KEPT_US / SECOND_US,
            median=late[len(late) // 2],
            p99=late[min(len(late) * 99 // 100, len(late) - 1)],
            most=late[-1],
        )

    def newest(self, symbols: Collection[str] | None = None) -> list[Newest]:
        """Of each timeframe the newest, finest first; with `symbols` of each of these and timeframe."""
        groups: dict[tuple[str, ...], list[tuple[Candle, int]]] = {}
        for (symbol, timeframe), found in self._newest.items():
            if symbols is None:
                groups.setdefault((timeframe,), []).append(found)
            elif symbol in symbols:
                groups.setdefault((timeframe, symbol), []).append(found)
        ordered = sorted(groups.items(), key=lambda each: (Timeframe.parse(each[0][0]), each[0]))
        return [_newest(found) for _, found in ordered]


def _newest(found: list[tuple[Candle, int]]) -> Newest:
    candle, appended_us = max(found, key=lambda each: (each[0].close_time, each[1]))
    return Newest(
        timeframe=candle.timeframe,
        symbol=candle.symbol,
        open_time=candle.open_time,
        close_time=candle.close_time,
        close=format_decimal(candle.close),
        appended_at=appended_us,
        symbols=sum(other.close_time == candle.close_time for other, _ in found),
    )
