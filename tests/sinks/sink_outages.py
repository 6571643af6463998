"""The half of the certification suite that is about trouble: stores that are away, full or slow, workers that die.

A test that needs what not every store or machine can be made to do asks for a hook of the stage and is skipped without.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from sink_fakes import MemoryLog, a_service, a_worker
from sink_samples import a_candle, a_gap, opened, oracle, stored, stored_gaps, until

from ashi.contracts.candle import encode_candle
from ashi.contracts.feed import encode_feed
from ashi.runtime.metrics import sink as metrics
from ashi_sinks.protocol import RetryableError
from ashi_sinks.streams import CandleStreams
from ashi_sinks.writer import Writer

ATTEMPTS_WHILE_AWAY = 5
"""Pauses of up to 0.1, 0.2, 0.4, 0.8 s: what an outage of 30 s is to the worker, only shorter."""
SMALL_DISK_MB = 128
BATCHES_TO_FILL_IT = 100
MANY = 2_000


async def write_until_stored(sink, candles, gaps=()):
    """Write as the worker does; the places of the candles and of the gaps that the store refuses."""
    streams = CandleStreams(sink)
    writer = Writer(a_service(), streams.name, streams.what)
    of_candles, of_gaps, _ = streams.streams
    return [
        [refused.place for refused in await writer.write(candles, of_candles.write)],
        [refused.place for refused in await writer.write(gaps, of_gaps.write)],
    ]


async def work_through(log, sink, size=100):
    """Let a worker read all there is, store it and stop."""
    service, streams = a_service(), CandleStreams(sink)
    working = asyncio.create_task(a_worker(log, streams, service, size).run())
    await until(lambda: working.done() or (log.at_end.is_set() and log.all_committed))
    service.stopping.set()
    await working


def failures(sink):
    return metrics.write_failures.labels(sink.name)._value.get()


@contextmanager
def filled(folder):
    """No byte left on the disk of `folder`, for a while."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while file.write(b"\0" * size) == size:
                        pass
                except OSError:
                    continue
        yield
    finally:
        filler.unlink()


class OutageCertification:
    """See `SinkCertification`, which every store subclasses."""

    @pytest.fixture
    def small_disk(self):
        """A file system of `SMALL_DISK_MB` of its own, which any user may write."""
        folder = Path(tempfile.mkdtemp(prefix="ashi-disk-"))
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MB}m,mode=777", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            folder.rmdir()
            pytest.skip("this user cannot mount a small disk")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
            folder.rmdir()

    @pytest.fixture
    def shared_stage(self, stage):
        """A hook: a stage that another process can open, by its `url`."""
        if not hasattr(stage, "url"):
            pytest.skip("this store has no URL")
        return stage

    @pytest.fixture
    def new_stage_on(self):
        """A hook: a function that makes a stage whose data is in the given folder."""
        pytest.skip("this store has no folder")

    @pytest.mark.slow
    def test_a_worker_waits_for_a_store_that_is_away_and_stores_all_when_it_is_back(self, stage):
        candles, gaps = [a_candle(minute) for minute in range(50)], [a_gap(0), a_gap(1)]

        async def scenario():
            async with opened(stage.sink()) as sink:
                await sink.write([a_candle(0)])
                before = failures(sink)
                log = MemoryLog(
                    [encode_candle(candle) for candle in candles], gaps=[[encode_feed(gap) for gap in gaps]]
                )
                with stage.unavailable():
                    working = asyncio.create_task(work_through(log, sink))
                    await until(lambda: failures(sink) >= before + ATTEMPTS_WHILE_AWAY)
                    assert not any(log.committed.values())
                await working
                assert log.all_committed
            async with opened(stage.reader()) as reader:
                return await stored(reader), await stored_gaps(reader)

        assert asyncio.run(scenario()) == (candles, gaps)

    def test_a_worker_with_nothing_to_read_writes_and_commits_nothing(self, stage):
        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                log = MemoryLog([])
                await work_through(log, sink)
                return await reader.count(), any(log.committed.values()), log.dead

        assert asyncio.run(scenario()) == (0, False, [])

    def test_a_poison_row_is_put_aside_alone_and_all_others_are_stored(self, stage):
        good, good_gaps = [a_candle(minute) for minute in range(200)], [a_gap(0), a_gap(1)]
        poison = msgspec.structs.replace(stage.refused, version=2)  # of a window whose older version is to be stored
        candles, gaps = [*good[:77], poison, *good[77:]], [good_gaps[0], stage.refused_gap, good_gaps[1]]

        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                refused = await write_until_stored(sink, candles, gaps)
                return refused, await stored(reader), await stored_gaps(reader)

        assert asyncio.run(scenario()) == ([[77], [1]], oracle(good), good_gaps)

    @pytest.mark.processes
    def test_a_worker_killed_between_write_and_commit_has_stored_the_batch_and_the_next_changes_nothing(
        self, shared_stage
    ):
        stage = shared_stage
        candles = [
            a_candle(minute, price="0.00000001", volume=Decimal("12345678901234567890.5")) for minute in range(50)
        ]
        messages = [encode_candle(candle) for candle in candles]

        async def scenario():
            async with opened(stage.sink()):
                pass
            child = [sys.executable, str(Path(__file__).with_name("sink_crash.py")), stage.url]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
            killed = await asyncio.to_thread(
                subprocess.run, child, input=b"\n".join(messages), check=False, env=environment
            )
            assert killed.returncode == -signal.SIGKILL
            async with opened(stage.reader()) as reader:
                before = await stored(reader)
            log = MemoryLog(messages)
            async with opened(stage.sink()) as sink:
                await work_through(log, sink)
            async with opened(stage.reader()) as reader:
                return before, await stored(reader), log.all_committed

        assert asyncio.run(scenario()) == (candles, candles, True)

    def test_two_workers_that_write_the_same_windows_at_once_leave_the_greatest_versions(self, stage):
        dice = random.Random(1)
        parts = [
            [
                a_candle(
                    minute, version=dice.randrange(9), price=str(1 + minute), symbol=f"binance:S{dice.randrange(3)}"
                )
                for minute in dice.sample(range(300), 300)
            ]
            for _ in range(2)
        ]
        # The same content for the same version, as the log gives it; else which is first is anybody's guess.
        best = oracle(candle for part in parts for candle in part)

        async def scenario():
            async with opened(stage.sink()) as one, opened(stage.sink()) as other:
                logs = [MemoryLog([encode_candle(candle) for candle in part]) for part in parts]
                await asyncio.gather(
                    *(work_through(log, sink, 30) for log, sink in zip(logs, (one, other), strict=True))
                )
            async with opened(stage.reader()) as reader:
                return await stored(reader)

        assert asyncio.run(scenario()) == best

    @pytest.mark.processes
    def test_a_store_that_is_read_only_for_a_while_is_waited_for(self, stage):
        read_only = getattr(stage, "read_only", None)
        if read_only is None:
            pytest.skip("this store cannot be made read-only in a test")

        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                await sink.write([a_candle(0)])
                with read_only():
                    with pytest.raises(RetryableError, match="read-only"):
                        await sink.write([a_candle(1)])
                    assert await stored(reader) == [a_candle(0)]
                await sink.write([a_candle(1)])
                return await stored(reader)

        assert asyncio.run(scenario()) == [a_candle(0), a_candle(1)]

    @pytest.mark.processes
    def test_a_disk_that_is_full_is_waited_for_and_nothing_is_lost_once_there_is_space(self, new_stage_on, small_disk):
        batches = [[a_candle(number * MANY + at) for at in range(MANY)] for number in range(BATCHES_TO_FILL_IT)]
        stage = new_stage_on(small_disk)
        written = []

        async def write_all(sink):
            for batch in batches:
                written.append(batch)
                await sink.write(batch)

        async def scenario():
            async with opened(stage.sink()) as sink:
                await sink.write([a_candle(0)])
                with filled(small_disk), pytest.raises(RetryableError):
                    await write_all(sink)
                for batch in written:
                    await write_until_stored(sink, batch)
            async with opened(stage.reader()) as reader:
                return await stored(reader)

        assert asyncio.run(scenario()) == [candle for batch in written for candle in batch]
