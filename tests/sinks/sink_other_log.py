"""The part of the certification suite about a log that is cut or replaced: the sink stops, at every start, and says so.

Kafka is one in memory; which log it is is looked up by the rules that the real consumer goes by (`ReadLog`). What a cut
looks like on real brokers is tested in `test_sink_election_kafka.py` and `test_sink_kafka.py`.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import NamedTuple

import pytest
from sink_fakes import MemoryLog, a_service, a_worker
from sink_samples import a_candle, opened, oracle, stored, until

from ashi.contracts.candle import encode_candle
from ashi.contracts.errors import StateError
from ashi.runtime.kafka.cluster.log_identity import Standing, fingerprint_of
from ashi.runtime.kafka.cluster.offsets import Committed
from ashi.runtime.kafka.cluster.topic_ids import TopicIdentity
from ashi_sinks.read_log import ReadLog
from ashi_sinks.streams import CandleStreams

OLD = [a_candle(minute, version=minute + 10, price="10") for minute in range(20)]
NEW = [a_candle(minute, version=minute + 9, price="20") for minute in range(15, 45)]
"""As after a cut at offset 15: the windows come again, some as outdated versions."""


class At(NamedTuple):
    """What names a partition to the worker."""

    topic: str
    partition: int


AT = At("candles", 0)


class IdentifiedLog(MemoryLog):
    """One partition of candles, whose consumer goes by `ReadLog` as `KafkaSinkConsumer` does; also a probe of it."""

    def __init__(self, candles):
        self.topic_id = "the-first"
        self.notes = {}
        self.clock = count(1_700_000_000)
        super().__init__([])
        self.append(candles)

    def append(self, candles):
        for candle in candles:
            message = MemoryLog([encode_candle(candle)]).partitions[0][0]
            message.offset, message.timestamp = len(self.partitions[0]), next(self.clock)
            self.partitions[0].append(message)

    def cut(self, offset):
        """The log ends there: an election that was not clean, or a restore."""
        del self.partitions[0][offset:]

    def restart(self, crash_in=None, crash_at=None):
        super().restart(crash_in, crash_at)
        self.read_log = ReadLog("a-group", CandleStreams.remedy, lambda _: self, lambda: next(self.clock))
        self.taken_over = False

    def rewind(self):
        """As `--from-beginning`."""
        self.restart()
        self.committed[0] = self.position[0] = 0
        self.notes.clear()

    async def identity(self):
        return TopicIdentity(self.topic_id, {})

    async def standing(self, offsets):
        records = self.partitions[0]
        return {
            number: Standing(0, len(records), {at: fingerprint_of(records[at]) for at in asked if at < len(records)})
            for number, asked in offsets.items()
        }

    async def poll(self, most, wait_s):
        if not self.taken_over:
            committed = {AT: Committed(self.committed[0], self.notes.get(0, ""))} if self.committed[0] else {}
            assert await self.read_log.take_over([AT], committed) == set()
            self.taken_over = True
        if self.position[0] > len(self.partitions[0]):
            self.position[0] = 0  # an offset out of range: the library goes to the beginning
        span = (await super().poll(most, wait_s)).get(0)
        if span is None:
            return {}
        self.read_log.take(AT, span)
        return {AT: span}

    async def commit(self, offsets):
        await self.read_log.check(offsets)
        for at, offset in offsets.items():
            note = await self.read_log.note(at, offset)
            await super().commit({0: offset})
            self.notes[0] = note
            self.read_log.committed(at, offset)
        return True


async def run_until(log, sink, condition):
    """A worker that reads, until this holds or it ends by itself. Raises what it raises."""
    service = a_service()
    working = asyncio.create_task(a_worker(log, CandleStreams(sink), service).run())
    await until(lambda: working.done() or condition())
    service.stopping.set()
    await working


def cut_and_grown(log):
    log.cut(15)
    log.append(NEW)


def cut(log):
    log.cut(10)
    log.append(NEW[:3])


def replaced_and_outgrown(log):
    log.topic_id = "the-second"
    log.cut(0)
    log.append(NEW)


def grown(log):
    log.append(NEW)


def restored_and_grown(log):
    """Record by record: the same log, by another id."""
    log.topic_id = "the-second"
    log.append(NEW)


CHANGES = {"cut below the position": cut, "cut and outgrown": cut_and_grown, "made anew": replaced_and_outgrown}
SAME = {"grown": grown, "restored": restored_and_grown}


class OtherLogCertification:
    """See `SinkCertification`, which every store subclasses."""

    @pytest.mark.parametrize("running", [True, False], ids=["under a worker", "between two"])
    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_another_log_stops_the_worker_at_every_start_and_reading_it_from_the_beginning_stores_all(
        self, stage, change, running
    ):
        async def scenario():
            log = IdentifiedLog(OLD)
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                if running:
                    working = asyncio.create_task(run_until(log, sink, lambda: False))
                    await until(lambda: log.committed[0] == len(OLD))
                    change(log)
                    with pytest.raises(StateError, match=r"candles/0 is not the log .* a-group has read.*--from-begin"):
                        await working
                else:
                    await run_until(log, sink, lambda: log.committed[0] == len(OLD))
                    change(log)
                new = [candle for candle in NEW if encode_candle(candle) in {each.value for each in log.partitions[0]}]
                assert new, "nothing of the new log could be missed"
                before = await stored(reader)
                assert set(before) <= set(oracle([*OLD, *new])) | set(OLD)
                for _ in range(2):
                    log.restart()
                    with pytest.raises(StateError, match="--from-beginning"):
                        await run_until(log, sink, lambda: False)
                assert (log.committed[0], await stored(reader)) == (len(OLD), before)
                log.rewind()
                await run_until(log, sink, lambda: log.all_committed)
                log.restart()
                await run_until(log, sink, lambda: log.all_committed)
                return await stored(reader), oracle([*OLD, *new])

        found, wanted = asyncio.run(scenario())
        assert found == wanted

    @pytest.mark.parametrize("running", [True, False], ids=["under a worker", "between two"])
    @pytest.mark.parametrize("change", SAME.values(), ids=SAME)
    def test_the_same_log_goes_on_also_when_it_was_restored(self, stage, change, running):
        async def scenario():
            log = IdentifiedLog(OLD)
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                if running:
                    working = asyncio.create_task(run_until(log, sink, lambda: log.committed[0] == len(OLD) + len(NEW)))
                    await until(lambda: log.committed[0] == len(OLD))
                    change(log)
                    await working
                else:
                    await run_until(log, sink, lambda: log.all_committed)
                    change(log)
                    log.restart()
                    await run_until(log, sink, lambda: log.all_committed)
                assert log.all_committed
                return await stored(reader)

        assert asyncio.run(scenario()) == oracle([*OLD, *NEW])
