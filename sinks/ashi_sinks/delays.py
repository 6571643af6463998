"""How far a sink is behind, and how late its rows are: for the metrics."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from ashi.contracts.timeframe import HOUR_US
from ashi.runtime.kafka.consuming.lag import LagWatch
from ashi.runtime.metrics import sink as metrics
from ashi.runtime.wall_clock import now_us

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ashi_sinks.consumer import Record
    from ashi_sinks.read_log import Stored

AWAITED_US: Final = HOUR_US
"""Of a sink that goes on, what was appended so long before its start is not awaited any more."""


class RowDelays:
    """Times rows from the append of their record until they are stored.

    A store that is filled from the beginning of the topics gets years of candles, which nobody waits for: there only
    those count that are appended from then on. One that goes on has an hour before its start counted as well, so that a
    sink that was away is seen to have been late.
    """

    def __init__(self, sink: str, *, goes_on: bool = False, now_us: Callable[[], int] = now_us) -> None:
        """`sink` is the metrics' label; `goes_on`: its group has read before, and goes on from there."""
        self._sink = sink
        self._now_us = now_us
        self._since_us = now_us() - (AWAITED_US if goes_on else 0)

    def begin_anew(self) -> None:
        """All is read once more from the beginning."""
        self._since_us = self._now_us()

    def stored(self, records: Sequence[Record], timeframes: Sequence[str]) -> None:
        """These records are stored now; `timeframes` are theirs, or none are given and nothing is timed."""
        if not timeframes:
            return
        now_us = self._now_us()
        appended = Counter((timeframe, record.timestamp) for record, timeframe in zip(records, timeframes, strict=True))
        for (timeframe, at_ms), count in appended.items():
            if at_ms * 1_000 >= self._since_us:
                delay_s = max(now_us - at_ms * 1_000, 0) / 1e6
                metrics.row_delay_seconds.labels(self._sink, timeframe).observe_many(delay_s, count)


class SinkLag:
    """Shows how far a sink is behind in each partition that it holds."""

    def __init__(self, sink: str, now_us: Callable[[], int] = now_us) -> None:
        """`sink` is the metrics' label."""
        self._sink = sink
        self._now_us = now_us
        self._watch = LagWatch()

    def show(self, stored: Mapping[Any, Stored], places: Mapping[Any, tuple[int, int]]) -> None:
        """`stored`: what is committed, looked at before `places`: where each is read on from, and where it ends."""
        metrics.sink_lag_records.clear()
        metrics.sink_lag_seconds.clear()
        now = self._now_us()
        for partition, (position, end) in places.items():
            done = stored.get(partition)
            # Of what was never committed, that is read from the beginning, the place in the topic is all there is.
            at, read_until = (position, 0) if done is None else done
            lag = self._watch.look(partition, at=at, end=end, read_until=read_until, now=now)
            topic, number = partition
            labels = self._sink, topic, number
            metrics.sink_lag_records.labels(*labels).set(lag.records)
            if lag.seconds is not None:
                metrics.sink_lag_seconds.labels(*labels).set(lag.seconds)
