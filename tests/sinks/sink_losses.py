"""The part of the certification suite about rows that somebody else takes away under a running worker."""

from __future__ import annotations

import asyncio

import pytest
from sink_fakes import MemoryLog, a_service, a_worker
from sink_samples import a_candle, a_gap, a_status, opened, stored, stored_gaps, until

from ashi.contracts.candle import encode_candle
from ashi.contracts.errors import StorageError
from ashi.contracts.feed import encode_feed
from ashi.runtime.metrics import sink as metrics
from ashi_sinks import worker as worker_module
from ashi_sinks.protocol import RetryableError, RowsLostError
from ashi_sinks.streams import CandleStreams

TABLES = ("candles", "feed_gaps", "feed_status")
TOPICS = {"candles": "candles", "feed_gaps": "feed.gaps", "feed_status": "feed.status"}
EACH = dict(zip(TABLES, ([a_candle(0), a_candle(1)], [a_gap(0), a_gap(1)], [a_status()]), strict=True))


async def write(sink, table, messages):
    writing = {"candles": sink.write, "feed_gaps": sink.write_gaps, "feed_status": sink.write_statuses}
    return await writing[table](messages)


class LossCertification:
    """See `SinkCertification`, which every store subclasses."""

    @pytest.fixture
    def emptied(self, stage):
        """A hook: what takes all rows of a table away, as another program would."""
        if not hasattr(stage, "empty"):
            pytest.skip("this store cannot be emptied in a test")
        return stage.empty

    @pytest.mark.parametrize("table", TABLES)
    @pytest.mark.parametrize("by", ["write", "look"])
    @pytest.mark.parametrize("since", ["this-worker", "the-one-before"])
    def test_a_table_that_was_emptied_is_told_once_before_anything_more_is_written(
        self, stage, emptied, table, by, since
    ):
        async def scenario():
            async with opened(stage.sink()) as sink:
                for name in TABLES:
                    await write(sink, name, EACH[name])
                    await sink.look(name)
                if since == "the-one-before":
                    await sink.close()
                    assert not await sink.open()
                emptied(table)
                with pytest.raises(RowsLostError, match=table) as caught:
                    await (write(sink, table, EACH[table][:1]) if by == "write" else sink.look(table))
                assert not isinstance(caught.value, RetryableError)
                for name in TABLES:  # the others are as they were, and this one is taken as it is now
                    await sink.look(name)
                assert await write(sink, table, EACH[table]) == len(EACH[table])
                await sink.look(table)

        asyncio.run(scenario())

    def test_a_worker_stores_what_was_lost_again_and_is_not_ready_meanwhile(self, stage, emptied, monkeypatch):
        monkeypatch.setattr(worker_module, "LOOK_S", 0.05)
        candles, gaps = [a_candle(minute) for minute in range(40)], [a_gap(minute) for minute in range(6)]
        log = MemoryLog(
            [encode_candle(candle) for candle in candles[:20]],
            [encode_candle(candle) for candle in candles[20:]],
            gaps=[[encode_feed(gap) for gap in gaps]],
        )
        service = a_service()

        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                worker = a_worker(log, CandleStreams(sink), service, size=7)
                counted = metrics.rows_lost.labels(sink.name)._value.get
                before = counted()
                working = asyncio.create_task(worker.run())
                for number, table in enumerate(("candles", "feed_gaps"), 1):
                    await until(lambda: log.at_end.is_set() and log.all_committed)
                    # Not in this thread: the worker may be within a transaction, which goes on in this loop.
                    await asyncio.to_thread(emptied, table)
                    await until(lambda number=number: len(log.read_again_of) == number)
                    assert counted() == before + number
                    service.health.set_ready(True, "storing")
                    ready, why = service.health.ready()
                    assert not ready
                    assert table in why
                await until(lambda: log.at_end.is_set() and log.all_committed)
                service.stopping.set()
                await working
                return log.read_again_of, await stored(reader), await stored_gaps(reader)

        assert asyncio.run(scenario()) == (["candles", "feed.gaps"], candles, gaps)

    def test_old_rows_of_a_series_may_go_while_its_newest_stays(self, stage):
        if not hasattr(stage, "delete_first"):
            pytest.skip("of this store no row can be deleted in a test")

        async def scenario():
            async with opened(stage.sink()) as sink, opened(stage.reader()) as reader:
                await sink.write([a_candle(minute) for minute in range(5)])
                await sink.look("candles")
                for left in (4, 3, 2, 1):
                    stage.delete_first()
                    await sink.look("candles")
                    assert len(await stored(reader)) == left

        asyncio.run(scenario())

    def test_a_table_whose_columns_were_altered_stops_the_worker_before_it_writes_more(self, stage):
        if not hasattr(stage, "alter"):
            pytest.skip("the columns of this store cannot be altered in a test")

        async def scenario():
            async with opened(stage.sink()) as sink:
                await sink.write([a_candle(0)])
                stage.alter()
                for attempt in (sink.write([a_candle(1)]), sink.look("candles"), sink.write([a_candle(1)])):
                    with pytest.raises(StorageError, match="other columns than Ashi's") as caught:
                        await attempt
                    assert not isinstance(caught.value, RetryableError | RowsLostError)

        asyncio.run(scenario())
