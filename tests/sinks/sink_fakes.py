"""Kafka and a store in memory, for the worker's tests."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from dataclasses import dataclass, field

import msgspec
from sink_samples import a_candle, a_gap

from ashi.contracts.errors import StorageError
from ashi.contracts.feed import overlaps
from ashi.runtime.kafka.consuming.spans import Span
from ashi.runtime.service import Service
from ashi.runtime.settings import Settings
from ashi_sinks.protocol import (
    RefusedError,
    RetryableError,
    RowsLostError,
    SeriesSpan,
    by_symbol_and_length,
    newest,
    newest_gaps,
    newest_statuses,
)
from ashi_sinks.worker import SinkWorker
from ashi_sinks.writer import Writer

TOO_MANY = 2**63
"""A number of trades that a message may have and a store of 64-bit integers refuses."""


FOREVER = 2**63


def a_service(**environment):
    return Service("sink-test", Settings.from_environment(environment))


def a_worker(log, streams, service, size=10, interval_s=0.01):
    """The worker that reads this log into these streams until the service is told to stop."""
    writer = Writer(service, streams.name, streams.what)
    return SinkWorker(log, streams, writer, service, group="a-group", batch_size=size, batch_interval_s=interval_s)


class CrashError(Exception):
    """The process is killed here."""


@dataclass
class Message:
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = 0
    headers: tuple[tuple[str, bytes | None], ...] = ()


def key_of(value):
    """The symbol of a message, as its key must be; for what tells none, another one."""
    try:
        return json.loads(value)["symbol"].encode()
    except (ValueError, TypeError, KeyError, AttributeError):
        return b"key"


EMPTY_POLL_S = 0.001
"""How long a poll without records takes, at most: a worker that waits for its store asks again and again."""


class MemoryLog:
    """Topics in memory that outlive the worker: records, committed offsets, dead letters.

    The partitions of `feed.gaps`, then of `feed.status`, come after those of `candles`; what names one to the worker is
    its place.
    """

    def __init__(self, *partitions, topic="candles", gaps=(), statuses=()):
        self.partitions = [
            [Message(name, number, offset, key_of(value), value) for offset, value in enumerate(values)]
            for name, parts in ((topic, partitions), ("feed.gaps", gaps), ("feed.status", statuses))
            for number, values in enumerate(parts)
        ]
        self.committed = defaultdict(int)
        self.dead = []
        self.read_again_of = []
        self.at_end = asyncio.Event()
        self.commits_to_fail = 0
        self.behind = {}
        """How many offsets that no reader gets follow a partition's last record."""
        self.restart()

    def restart(self, crash_in=None, crash_at=None):
        """Go on from what is committed; the process is killed `crash_in` so many calls, or `crash_at` one by name."""
        self.at_end.clear()
        self.crash_in = crash_in
        self.crash_at = crash_at
        self.position = dict(enumerate(self.committed[number] for number in range(len(self.partitions))))

    def _step(self, name):
        if self.crash_at == name:
            raise CrashError
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in < 0:
                raise CrashError

    async def poll(self, most, wait_s):
        self._step("poll")
        await asyncio.sleep(0)
        fetched = {}
        for number, records in enumerate(self.partitions):
            if most and (found := records[self.position[number] :][:most]):
                begin = self.position[number]
                self.position[number] += len(found)
                fetched[number] = Span(begin, self.position[number], found)
                most -= len(found)
            elif number in self.behind and self.position[number] == len(records):
                begin = self.position[number]
                self.position[number] += self.behind[number]
                fetched[number] = Span(begin, self.position[number], ())
        if not fetched:
            self.at_end.set()
            await asyncio.sleep(min(wait_s, EMPTY_POLL_S))
        return fetched

    async def send_dead_letters(self, dead_letters):
        self._step("send_dead_letters")
        self.dead += dead_letters

    async def read_again(self, topic):
        self.read_again_of.append(topic)
        for number, records in enumerate(self.partitions):
            if records and records[0].topic == topic:
                self.committed[number] = 0
            self.position[number] = self.committed[number]
        self.at_end.clear()

    async def commit(self, offsets):
        self._step("commit")
        if self.commits_to_fail:
            self.commits_to_fail -= 1
            return False
        self.committed.update(offsets)
        return True

    @property
    def all_committed(self):
        return all(self.committed[number] == len(records) for number, records in enumerate(self.partitions))


class MemorySink:
    """The least sink that keeps the promise; held to the same suite as the real ones."""

    name = "memory"

    def __init__(self, rows):
        self.rows = rows  # None until the store is made
        self.away = False
        self.writes = []

    async def open(self):
        if self.rows.table is None:
            self.rows.table = {}
        return not self.rows.table

    async def write(self, candles):
        assert len(newest(candles)) == len(candles)
        await self.look("candles")
        if any(candle.trade_count >= TOO_MANY for candle in candles):
            raise RefusedError("too many trades")
        self.writes.append(list(candles))
        changed = 0
        for candle in candles:
            key = (candle.symbol, candle.timeframe, candle.open_time)
            if key not in self.rows.table or self.rows.table[key].version < candle.version:
                self.rows.table[key] = candle
                changed += 1
        return changed

    async def write_gaps(self, gaps):
        assert len(newest_gaps(gaps)) == len(gaps)
        await self.look("feed_gaps")
        if any(gap.trades_recovered >= TOO_MANY for gap in gaps):
            raise RefusedError("too many trades")
        changed = 0
        for gap in gaps:
            key = (gap.symbol, gap.from_time)
            if key not in self.rows.gaps or self.rows.gaps[key].updated_at < gap.updated_at:
                self.rows.gaps[key] = gap
                changed += 1
        return changed

    async def write_statuses(self, statuses):
        assert len(newest_statuses(statuses)) == len(statuses)
        await self.look("feed_status")
        changed = 0
        for status in statuses:
            before = self.rows.statuses.get(status.symbol)
            if before is None or before.updated_at < status.updated_at:
                self.rows.statuses[status.symbol] = msgspec.structs.replace(status, workers=())
                changed += 1
        return changed

    async def write_venue_candles(self, candles):
        await self.look("venue_candles")
        changed = 0
        for candle in candles:
            key = (candle.symbol, candle.timeframe, candle.open_time)
            before = self.rows.venue_candles.get(key)
            if before is None or before.fetched_at < candle.fetched_at:
                self.rows.venue_candles[key] = candle
                changed += 1
        return changed

    async def look(self, table):
        if self.rows.away:
            raise RetryableError("away")
        if table in self.rows.lost:
            self.rows.lost.remove(table)
            raise RowsLostError(f"table {table} was emptied")

    async def close(self):
        pass


@dataclass
class Rows:
    table: dict | None = None
    away: bool = False
    gaps: dict = field(default_factory=dict)
    statuses: dict = field(default_factory=dict)
    venue_candles: dict = field(default_factory=dict)
    lost: set = field(default_factory=set)

    def in_order(self):
        assert self.table is not None
        return [self.table[key] for key in sorted(self.table)]

    def gaps_in_order(self):
        return [self.gaps[key] for key in sorted(self.gaps)]


class MemoryStage:
    refused = a_candle(9, trade_count=TOO_MANY)
    refused_gap = a_gap(9, trades_recovered=TOO_MANY)

    def __init__(self):
        self.rows = Rows()

    def sink(self):
        return MemorySink(self.rows)

    def reader(self):
        return MemoryReader(self.rows)

    def unavailable(self):
        return _Away(self.rows)

    def empty(self, table):
        {"candles": self.rows.table or {}, "feed_gaps": self.rows.gaps, "feed_status": self.rows.statuses}[
            table
        ].clear()
        self.rows.lost.add(table)


class _Away:
    def __init__(self, rows):
        self.rows = rows

    def __enter__(self):
        self.rows.away = True

    def __exit__(self, *_):
        self.rows.away = False


class MemoryReader:
    def __init__(self, rows):
        self.rows = rows

    async def open(self):
        if self.rows.table is None:
            raise StorageError("the table does not exist")

    async def read(self, symbol, timeframe, start=None, end=None, limit=None):
        found = [
            candle
            for candle in self.rows.in_order()
            if (candle.symbol, candle.timeframe) == (symbol, timeframe)
            and (start is None or candle.open_time >= start)
            and (end is None or candle.open_time < end)
        ]
        for candle in found if limit is None else found[max(len(found) - limit, 0) :]:
            yield candle

    async def spans(self):
        times: dict[tuple[str, str], list[int]] = {}
        for candle in self.rows.in_order():
            times.setdefault((candle.symbol, candle.timeframe), []).append(candle.open_time)
        return by_symbol_and_length(SeriesSpan(*key, min(each), max(each)) for key, each in times.items())

    async def count(self, symbol=None, timeframe=None):
        return sum(
            symbol in (None, candle.symbol) and timeframe in (None, candle.timeframe) for candle in self.rows.in_order()
        )

    async def greatest_version(self):
        return max((candle.version for candle in self.rows.in_order()), default=None)

    async def gaps(self, symbol, start=None, end=None):
        start, end = -FOREVER if start is None else start, FOREVER if end is None else end
        return [gap for gap in self.rows.gaps_in_order() if gap.symbol == symbol and overlaps(gap, start, end)]

    async def status(self, symbol):
        return self.rows.statuses.get(symbol)

    async def statuses(self):
        return list(self.rows.statuses.values())

    async def venue_candles(self, symbol, timeframe, start=None, end=None, limit=None):
        found = [
            candle
            for key, candle in sorted(self.rows.venue_candles.items())
            if key[:2] == (symbol, timeframe)
            and (start is None or candle.open_time >= start)
            and (end is None or candle.open_time < end)
        ]
        for candle in found if limit is None else found[max(len(found) - limit, 0) :]:
            yield candle

    async def venue_spans(self):
        times: dict[tuple[str, str], list[int]] = {}
        for symbol, timeframe, open_time in self.rows.venue_candles:
            times.setdefault((symbol, timeframe), []).append(open_time)
        return by_symbol_and_length(SeriesSpan(*key, min(each), max(each)) for key, each in times.items())

    async def close(self):
        pass
