"""How late candles are, as a reader of the topic sees it: seconds from when each was due to when Kafka had it."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from statistics import median, quantiles
from typing import Final, NamedTuple

from confluent_kafka import Consumer, TopicPartition

from ashi.contracts import decode_candle
from ashi.contracts.topics import CANDLES
from multihost.brokers import SILENT

TIMEFRAME: Final = "1s"
LENGTH_US: Final = 1_000_000
_POLL_S = 0.1


class Delay(NamedTuple):
    """A candle: when it was due (seconds since the epoch), how much later Kafka had it (seconds)."""

    symbol: str
    due_s: float
    late_s: float


class Delays(threading.Thread):
    """Reads the candles of a second, from now on, until told to stop; each counts when it comes for the first time."""

    def __init__(self, bootstrap: str, partitions: int, symbols: Collection[str], lateness_us: int) -> None:
        super().__init__(name="delays", daemon=True)
        self._seen: list[Delay] = []
        self._newest = dict.fromkeys(symbols, 0)
        self._lateness_us = lateness_us
        self._told_to_stop = threading.Event()
        self._brokers = bootstrap
        self._partitions = partitions

    def run(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._brokers,
                "group.id": "rehearsal",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 100,
                **SILENT,
            }
        )
        consumer.assign([TopicPartition(CANDLES, number, 0) for number in range(self._partitions)])
        while not self._told_to_stop.is_set():
            for message in consumer.consume(1_000, _POLL_S):
                value = message.value()
                if message.error() is None and value is not None:
                    self._take(value, message.timestamp()[1])
        consumer.close()

    def _take(self, value: bytes, appended_ms: int) -> None:
        candle = decode_candle(value)
        if candle.timeframe != TIMEFRAME or candle.open_time <= self._newest[candle.symbol]:
            return  # a correction, or a repetition: windows of a symbol close in their order
        self._newest[candle.symbol] = candle.open_time
        due_s = (candle.open_time + LENGTH_US + self._lateness_us) / 1e6
        self._seen.append(Delay(candle.symbol, due_s, appended_ms / 1e3 - due_s))

    def stop(self) -> None:
        """And wait for it."""
        self._told_to_stop.set()
        if self.ident is not None:
            self.join(30)

    @property
    def late_now_s(self) -> float:
        """How late the symbol is, that is the furthest behind."""
        newest_due_s = (min(self._newest.values()) + LENGTH_US + self._lateness_us) / 1e6
        return max(time.time() - newest_due_s - LENGTH_US / 1e6, 0.0)

    def between(self, began_s: float, ended_s: float) -> list[Delay]:
        """Of the candles that were due then."""
        return [each for each in tuple(self._seen) if began_s <= each.due_s <= ended_s]


def longest(delays: Collection[Delay]) -> float:
    """The longest of them, seconds."""
    return max((each.late_s for each in delays), default=0.0)


def middle_and_worst_hundredth(delays: Collection[Delay]) -> tuple[float, float]:
    """Their median and their 99th percentile, seconds."""
    late = [each.late_s for each in delays]
    return (median(late), quantiles(late, n=100)[98]) if len(late) > 1 else (longest(delays), longest(delays))
