from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from contextlib import closing

import msgspec
import pytest
import sink_fakes
from hypothesis import given, settings
from hypothesis import strategies as st
from sink_certification import (
    SinkCertification,
    a_candle,
    a_gap,
    gap_messages,
    gap_oracle,
    opened,
    oracle,
    stored,
    stored_gaps,
    until,
)
from sink_fakes import TOO_MANY, CrashError, MemoryLog, MemorySink, MemoryStage, Rows, a_service, key_of

from ashi.contracts.candle import encode_candle
from ashi.contracts.errors import StorageError
from ashi.contracts.feed import encode_feed
from ashi.runtime.metrics.common import dead_letters
from ashi.runtime.service import StoppedError
from ashi_sinks import writer as writer_module
from ashi_sinks.sqlite import file
from ashi_sinks.sqlite.reader import SqliteReader
from ashi_sinks.sqlite.sink import SqliteSink
from ashi_sinks.streams import CandleStreams

GARBAGE = [
    b"",
    b"{",
    b"\xff\xfe",
    b"null",
    b'{"symbol": "binance:ETHUSDT"}',
    encode_candle(a_candle()).replace(b'"high":"100"', b'"high":"NaN"'),
    encode_candle(a_candle()).replace(b'"high":"100"', b'"high":"1E+999999999"'),
    encode_candle(a_candle()).replace(b"1640995200000000", b"1640995200000"),
    encode_candle(a_candle()).replace(b'"volume":"1.5"', b'"volume":"-1.5"'),
]

GAP_GARBAGE = [
    b"",
    b"{",
    encode_candle(a_candle()),
    encode_feed(a_gap()).replace(b'"open"', b'"mended"'),
    encode_feed(a_gap(to_time=a_gap().from_time - 1)),
    encode_feed(a_gap(trades_recovered=-1)),
]


def a_worker(log, sink, service, size=10, interval_s=0.0):
    return sink_fakes.a_worker(log, CandleStreams(sink), service, size, interval_s)


async def until_the_end(log, sink, service=None, **options):
    """Run a worker until it has read everything and stopped."""
    service = service or a_service()
    working = asyncio.create_task(a_worker(log, sink, service, **options).run())
    ending = asyncio.create_task(log.at_end.wait())
    await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    service.stopping.set()
    await working


def test_what_was_read_is_stored_then_committed_and_stopping_finishes_the_batch_in_hand():
    candles = [a_candle(minute) for minute in range(25)]

    async def scenario():
        log, rows = MemoryLog([encode_candle(candle) for candle in candles]), Rows({})
        sink = MemorySink(rows)
        # The interval never passes: the last five are stored only because the worker stops.
        await until_the_end(log, sink, size=10, interval_s=3_600)
        assert [len(batch) for batch in sink.writes] == [10, 10, 5]
        assert log.all_committed
        assert rows.in_order() == candles

    asyncio.run(scenario())


def test_letters_are_served_as_none_before_there_is_one_so_that_the_first_is_seen():
    dead_letters.clear()
    a_worker(MemoryLog([]), MemorySink(Rows({})), a_service())
    served = [(sample.labels["reason"], sample.value) for metric in dead_letters.collect() for sample in metric.samples]
    assert ("invalid", 0.0) in served
    assert ("refused", 0.0) in served


def test_of_a_stream_that_does_not_rest_each_batch_waits_for_its_time_or_its_size_and_not_for_the_one_before():
    class Trickle(MemoryLog):
        async def poll(self, most, wait_s):
            return await super().poll(min(most, 1), wait_s)

    candles = [a_candle(minute) for minute in range(25)]

    async def scenario():
        log, rows = Trickle([encode_candle(candle) for candle in candles]), Rows({})
        sink = MemorySink(rows)
        await until_the_end(log, sink, size=10, interval_s=3_600)
        assert [len(batch) for batch in sink.writes] == [10, 10, 5]
        assert log.all_committed

    asyncio.run(scenario())


def test_while_a_batch_is_stored_the_next_one_is_read_and_no_more():
    candles = [a_candle(minute) for minute in range(50)]
    may_write = asyncio.Event()

    class SlowSink(MemorySink):
        async def write(self, batch):
            await may_write.wait()
            return await super().write(batch)

    async def scenario():
        log, rows = MemoryLog([encode_candle(candle) for candle in candles]), Rows({})
        working = asyncio.create_task(until_the_end(log, SlowSink(rows), size=10))
        await until(lambda: log.position[0] == 20)
        for _ in range(100):
            await asyncio.sleep(0)
        assert (log.position[0], log.committed[0], rows.in_order()) == (20, 0, [])
        may_write.set()
        await working
        assert rows.in_order() == candles
        assert log.all_committed

    asyncio.run(scenario())


def test_a_batch_that_is_not_full_is_stored_when_its_time_is_up():
    async def scenario():
        log, rows = MemoryLog([encode_candle(a_candle())]), Rows({})
        service = a_service()
        working = asyncio.create_task(a_worker(log, MemorySink(rows), service, size=10, interval_s=0.01).run())
        await until(lambda: log.all_committed)
        assert not service.stopping.is_set()
        service.stopping.set()
        await working
        assert rows.in_order() == [a_candle()]

    asyncio.run(scenario())


def test_of_one_window_in_a_batch_only_the_greatest_version_is_written_and_the_first_of_equals():
    candles = [a_candle(version=1), a_candle(version=3, price="3"), a_candle(version=3, price="4"), a_candle(version=2)]

    async def scenario():
        log, sink = MemoryLog([encode_candle(candle) for candle in candles]), MemorySink(Rows({}))
        await until_the_end(log, sink)
        assert sink.writes == [[a_candle(version=3, price="3")]]

    asyncio.run(scenario())


@pytest.mark.parametrize("value", [*GARBAGE, None])
def test_a_message_that_is_no_candle_is_a_dead_letter_and_the_rest_goes_through(value):
    async def scenario():
        log = MemoryLog([encode_candle(a_candle(0)), value, encode_candle(a_candle(1))])
        rows = Rows({})
        await until_the_end(log, MemorySink(rows))
        assert rows.in_order() == [a_candle(0), a_candle(1)]
        assert log.all_committed
        [letter] = log.dead
        headers = dict(letter.headers)
        assert (letter.topic, letter.key, letter.value) == ("candles.dead", key_of(value), value)
        assert headers["ashi.source"] == b"candles/0/1"
        assert headers["ashi.consumer"] == b"a-group"
        assert headers["ashi.reason"]

    asyncio.run(scenario())


def test_a_refused_row_is_found_and_buried_and_an_older_version_of_it_is_stored():
    good = [a_candle(minute) for minute in range(9)]
    poison = a_candle(4, version=2, trade_count=TOO_MANY)

    async def scenario():
        log, rows = MemoryLog([encode_candle(candle) for candle in [*good, poison]]), Rows({})
        await until_the_end(log, MemorySink(rows), size=100)
        assert rows.in_order() == good
        assert log.all_committed
        [letter] = log.dead
        assert letter.value == encode_candle(poison)
        assert dict(letter.headers)["ashi.reason"] == b"too many trades"
        assert dict(letter.headers)["ashi.source"] == b"candles/0/9"

    asyncio.run(scenario())


def test_gaps_are_stored_beside_candles_and_committed_only_then():
    candles, gaps = [a_candle(0), a_candle(1)], [a_gap(0), a_gap(1, minutes=None)]

    async def scenario():
        log = MemoryLog([encode_candle(candle) for candle in candles], gaps=[[encode_feed(gap) for gap in gaps]])
        rows = Rows({})
        log.restart(crash_at="commit")
        with pytest.raises(CrashError):
            await a_worker(log, MemorySink(rows), a_service()).run()
        assert (rows.in_order(), rows.gaps_in_order()) == (candles, gaps)
        assert not any(log.committed.values())
        log.restart()
        await until_the_end(log, MemorySink(rows))
        assert (rows.in_order(), rows.gaps_in_order()) == (candles, gaps)
        assert log.all_committed

    asyncio.run(scenario())


def test_gaps_alone_make_a_batch_that_is_stored_when_its_time_is_up():
    async def scenario():
        log, rows = MemoryLog(gaps=[[encode_feed(a_gap())]]), Rows({})
        service = a_service()
        working = asyncio.create_task(a_worker(log, MemorySink(rows), service, size=10, interval_s=0.01).run())
        await until(lambda: log.all_committed)
        service.stopping.set()
        await working
        assert rows.gaps_in_order() == [a_gap()]

    asyncio.run(scenario())


def test_of_one_gap_in_a_batch_the_newest_stays_however_the_messages_are_ordered():
    messages = [a_gap(updated=1, minutes=None), a_gap(updated=3, state="repaired"), a_gap(updated=3), a_gap(updated=2)]

    async def scenario():
        log, rows = MemoryLog(gaps=[[encode_feed(gap) for gap in messages]]), Rows({})
        await until_the_end(log, MemorySink(rows))
        assert rows.gaps_in_order() == [a_gap(updated=3, state="repaired")]

    asyncio.run(scenario())


def test_what_is_of_another_schema_or_under_another_key_is_a_dead_letter_though_its_value_is_sound():
    async def scenario():
        log = MemoryLog(
            [encode_candle(a_candle(minute)) for minute in range(4)], gaps=[[encode_feed(a_gap(n)) for n in range(2)]]
        )
        _, other_schema, other_key, own_schema = log.partitions[0]
        other_schema.headers = (("schema", b"ashi.candle.v2"),)
        other_key.key = b"binance:BTCUSDT"
        own_schema.headers = (("content-type", b"application/json"), ("schema", b"ashi.candle.v1"))
        log.partitions[1][1].headers = (("schema", b"ashi.candle.v1"),)
        rows = Rows({})
        await until_the_end(log, MemorySink(rows))
        assert rows.in_order() == [a_candle(0), a_candle(3)]
        assert rows.gaps_in_order() == [a_gap(0)]
        assert log.all_committed
        assert [letter.value for letter in log.dead] == [
            other_schema.value,
            other_key.value,
            log.partitions[1][1].value,
        ]
        reasons = [dict(letter.headers)["ashi.reason"].decode() for letter in log.dead]
        for text, reason in zip(("'ashi.candle.v2' is not known", "key", "'ashi.feed-gap.v1'"), reasons, strict=True):
            assert text in reason

    asyncio.run(scenario())


def test_offsets_that_no_reader_gets_are_committed_beyond_with_nothing_to_write():
    """At the end of a partition the group would seem to lag for ever."""

    async def scenario():
        log, rows = MemoryLog([encode_candle(a_candle(0))]), Rows({})
        log.behind[0] = 3
        await until_the_end(log, MemorySink(rows))
        assert log.committed[0] == 4
        assert not log.dead

    asyncio.run(scenario())


@pytest.mark.parametrize("value", [*GAP_GARBAGE, None])
def test_a_message_of_feed_gaps_that_is_no_gap_is_a_dead_letter_that_names_its_topic(value):
    async def scenario():
        log = MemoryLog([encode_candle(a_candle())], gaps=[[encode_feed(a_gap(0)), value, encode_feed(a_gap(1))]])
        rows = Rows({})
        await until_the_end(log, MemorySink(rows))
        assert rows.in_order() == [a_candle()]
        assert rows.gaps_in_order() == [a_gap(0), a_gap(1)]
        assert log.all_committed
        [letter] = log.dead
        headers = dict(letter.headers)
        assert (letter.topic, letter.key, letter.value) == ("candles.dead", key_of(value), value)
        assert headers["ashi.source"] == b"feed.gaps/0/1"
        assert headers["ashi.reason"]

    asyncio.run(scenario())


def test_a_gap_among_candles_and_a_candle_among_gaps_are_dead_letters():
    async def scenario():
        log, rows = MemoryLog([encode_feed(a_gap())], gaps=[[encode_candle(a_candle())]]), Rows({})
        await until_the_end(log, MemorySink(rows))
        assert not rows.table
        assert not rows.gaps
        sources = {dict(letter.headers)["ashi.source"]: letter.value for letter in log.dead}
        assert sources == {b"candles/0/0": encode_feed(a_gap()), b"feed.gaps/0/0": encode_candle(a_candle())}

    asyncio.run(scenario())


def test_a_refused_gap_is_found_and_buried_and_neither_candles_nor_other_gaps_suffer():
    gaps = [a_gap(minute) for minute in range(9)]
    poison = a_gap(4, updated=2, trades_recovered=TOO_MANY)

    async def scenario():
        log = MemoryLog([encode_candle(a_candle())], gaps=[[encode_feed(gap) for gap in [*gaps, poison]]])
        rows = Rows({})
        await until_the_end(log, MemorySink(rows), size=100)
        assert rows.in_order() == [a_candle()]
        assert rows.gaps_in_order() == gaps
        assert log.all_committed
        [letter] = log.dead
        assert letter.value == encode_feed(poison)
        assert dict(letter.headers)["ashi.source"] == b"feed.gaps/0/9"

    asyncio.run(scenario())


def test_a_dead_letter_that_cannot_be_sent_keeps_its_offset_uncommitted():
    async def scenario():
        log = MemoryLog([b"garbage"])
        log.restart(crash_at="send_dead_letters")
        with pytest.raises(CrashError):
            await a_worker(log, MemorySink(Rows({})), a_service()).run()
        assert not log.committed[0]

    asyncio.run(scenario())


def test_a_commit_that_kafka_did_not_answer_is_made_up_for_without_new_candles():
    async def scenario():
        log = MemoryLog([encode_candle(a_candle())])
        log.commits_to_fail = 3
        service = a_service()
        working = asyncio.create_task(a_worker(log, MemorySink(Rows({})), service).run())
        await until(lambda: log.all_committed)
        service.stopping.set()
        await working

    asyncio.run(scenario())


def test_while_the_store_is_away_the_worker_beats_is_not_ready_and_goes_on_when_it_is_back(monkeypatch):
    monkeypatch.setattr(writer_module, "FIRST_PAUSE_S", 0.001)

    async def scenario():
        log, rows = MemoryLog([encode_candle(a_candle())]), Rows({}, away=True)
        service = a_service()
        beats = []
        beat = service.health.beat

        def note_and_beat():
            beats.append(service.health.ready())
            beat()

        monkeypatch.setattr(service.health, "beat", note_and_beat)
        working = asyncio.create_task(a_worker(log, MemorySink(rows), service).run())
        await until(lambda: sum(reason == "waiting for the store: away" for _, reason in beats) >= 3)
        assert service.health.ready() == (False, "waiting for the store: away")
        assert not log.all_committed
        rows.away = False
        await until(lambda: log.all_committed)
        assert service.health.ready() == (True, "storing candles")
        service.stopping.set()
        await working
        assert rows.in_order() == [a_candle()]

    asyncio.run(scenario())


def test_a_worker_told_to_stop_while_the_store_is_away_stops_at_once_and_commits_nothing(monkeypatch):
    monkeypatch.setattr(writer_module, "FIRST_PAUSE_S", 3_600)  # it must not sit that out

    async def scenario():
        log, rows = MemoryLog([encode_candle(a_candle())]), Rows({}, away=True)
        service = a_service()
        working = asyncio.create_task(a_worker(log, MemorySink(rows), service).run())
        await until(lambda: "waiting" in service.health.ready()[1])
        service.stopping.set()
        with pytest.raises(StoppedError):
            await asyncio.wait_for(working, 60)
        assert not log.committed[0]

    asyncio.run(scenario())


def test_a_store_that_is_lost_stops_the_worker_with_nothing_committed(tmp_path):
    async def scenario():
        log = MemoryLog([encode_candle(a_candle())])
        async with opened(SqliteSink(tmp_path / "candles.db")) as sink:
            (tmp_path / "candles.db").unlink()
            with pytest.raises(StorageError, match="was moved or replaced"):
                await asyncio.wait_for(a_worker(log, sink, a_service()).run(), 60)
        assert not log.committed[0]

    asyncio.run(scenario())


def test_a_file_locked_by_another_process_for_a_while_delays_candles_and_gaps_and_loses_none(tmp_path, monkeypatch):
    monkeypatch.setattr(file, "BUSY_TIMEOUT_MS", 1)
    monkeypatch.setattr(writer_module, "FIRST_PAUSE_S", 0.001)
    path = tmp_path / "candles.db"
    candles = [a_candle(minute) for minute in range(50)]

    async def scenario():
        log = MemoryLog([encode_candle(candle) for candle in candles], gaps=[[encode_feed(a_gap())]])
        service = a_service()
        async with opened(SqliteSink(path)) as sink, opened(SqliteReader(path)) as reader:
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                working = asyncio.create_task(until_the_end(log, sink, service))
                await until(lambda: "locked by another process" in service.health.ready()[1])
            await working
            assert await stored(reader) == candles
            assert await stored_gaps(reader) == [a_gap()]
            assert log.all_committed

    asyncio.run(scenario())


class TestMemorySink(SinkCertification):
    """The suite itself must not depend on one store."""

    store = "memory"

    @pytest.fixture
    def new_stage(self):
        return MemoryStage


# A candle, one that the store refuses, or what is no candle.
_messages = st.lists(
    st.one_of(
        st.builds(
            a_candle,
            minute=st.integers(0, 2),
            version=st.integers(0, 3),
            price=st.integers(1, 99).map(str),
            trade_count=st.sampled_from([1, 1, 1, TOO_MANY]),
        ),
        st.sampled_from(GARBAGE),
    ),
    max_size=15,
)


@settings(max_examples=150)
@given(
    partitions=st.lists(_messages, min_size=1, max_size=3),
    gaps=st.lists(gap_messages | st.sampled_from(GAP_GARBAGE), max_size=8),
    size=st.integers(1, 8),
    crashes=st.lists(st.integers(0, 6), max_size=5),
)
@pytest.mark.slow
def test_whatever_comes_and_wherever_it_crashes_the_rows_are_the_oracles_and_the_rest_is_buried(
    partitions, gaps, size, crashes
):
    garbage_gaps = {gap for gap in gaps if isinstance(gap, bytes)}
    good_gaps = [gap for gap in gaps if not isinstance(gap, bytes)]
    good, garbage, refused, topic = [], set(), {}, []
    for number, messages in enumerate(partitions):
        values = []
        for message in messages:
            if isinstance(message, bytes):
                value = message
                garbage.add(value)
            else:
                # Each partition has symbols of its own, as in Kafka; else no equal version comes first.
                candle = msgspec.structs.replace(message, symbol=f"binance:P{number}")
                value = encode_candle(candle)
                if candle.trade_count == TOO_MANY:
                    refused[value] = candle
                else:
                    good.append(candle)
            values.append(value)
        topic.append(values)

    async def scenario():
        values = [gap if isinstance(gap, bytes) else encode_feed(gap) for gap in gaps]
        log, rows = MemoryLog(*topic, gaps=[values]), Rows({})
        for crash_in in [*crashes, None]:
            log.restart(crash_in)
            try:
                await until_the_end(log, MemorySink(rows), size=size)
            except CrashError:
                continue
        assert log.all_committed
        assert rows.gaps_in_order() == gap_oracle(good_gaps)
        dead = defaultdict(set)
        for letter in log.dead:
            dead[dict(letter.headers)["ashi.source"].split(b"/")[0]].add(letter.value)
        return rows.in_order(), dead[b"candles"], dead[b"feed.gaps"]

    stored_rows, dead, dead_gaps = asyncio.run(scenario())
    assert stored_rows == oracle(good)
    assert dead_gaps == garbage_gaps
    assert garbage <= dead <= garbage | refused.keys()
    # A candle that another one of its batch replaces never gets as far as being refused.
    versions = {(candle.symbol, candle.open_time): candle.version for candle in stored_rows}
    replaced = [candle for value, candle in refused.items() if value not in dead]
    assert all(versions[candle.symbol, candle.open_time] >= candle.version for candle in replaced)
