from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import delta_in_duckdb
import pytest
from deltalake import DeltaTable
from lake_trades import a_trade, as_rows, write
from sink_certification import opened, until
from sink_fakes import CrashError, MemoryLog, a_service, a_worker

from ashi.contracts.errors import StorageError
from ashi.contracts.timeframe import HOUR_US
from ashi.contracts.topics import TRADES, TRADES_DEAD
from ashi.contracts.trade import TRADE_SCHEMA, decode_trade, encode_trade
from ashi.runtime.kafka.cluster.offsets import committed_offsets, end_offsets
from ashi.runtime.kafka.connections.clients import admin_client, make_consumer, make_producer, partition_of
from ashi.runtime.kafka.consuming.groups import commit
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi.runtime.settings import Settings
from ashi_sinks.lake import trade_streams
from ashi_sinks.lake.location import lake_of
from ashi_sinks.lake.maintenance import compact, vacuum
from ashi_sinks.lake.tables import StoredTrade
from ashi_sinks.lake.trade_streams import TradeStreams
from ashi_sinks.lake.trades import LakeTrades, progress_key
from ashi_sinks.protocol import RetryableError, RowsLostError
from ashi_sinks.worker import sink_group
from servers import forked_stages

GROUP = sink_group(TradeStreams.name)
ROOT = Path(__file__).parents[2]
END = 2**53 - 1


WIDE = a_trade(7, price=Decimal("12345678901234567890.123456789012345678"), trade_id="取引-'\"", sequence=2**63 - 1)


@pytest.fixture
def lake(tmp_path):
    return lake_of(f"lake:///{tmp_path}/lake")


async def everything(table):
    return [row for symbol in await table.symbols() async for row in table.read(symbol, 0, END)]


def stored(lake):
    async def scenario():
        async with opened(LakeTrades(lake)) as table:
            return sorted(await everything(table), key=lambda row: row[:2])

    return asyncio.run(scenario())


def test_trades_come_back_as_they_went_in_with_their_place_in_the_topic(lake):
    rows = as_rows([a_trade(0), a_trade(1), WIDE, a_trade(2)])
    assert write(lake, rows) == [4]
    assert stored(lake) == rows


def test_what_is_stored_already_is_left_out_of_a_batch_that_comes_again(lake):
    rows, others = as_rows([a_trade(number) for number in range(6)]), as_rows([a_trade(9)], partition=1, first=5)
    assert write(lake, rows[:3], rows[:3], rows[1:5], [*rows[2:], *others], others) == [3, 0, 2, 2, 0]
    assert stored(lake) == [*rows, *others]


def test_a_trade_published_twice_is_twice_in_the_topic_and_in_the_table(lake):
    rows = as_rows([a_trade(0), a_trade(0)])
    write(lake, rows)
    assert stored(lake) == rows


@pytest.mark.slow
def test_what_is_noted_outlives_checkpoints_compaction_vacuum_and_the_worker(lake):
    rows = as_rows([a_trade(number) for number in range(120)])
    write(lake, *([row] for row in rows))
    list(compact(lake))
    list(vacuum(lake, HOUR_US))
    assert write(lake, rows[:100], rows[-1:]) == [0, 0]
    assert DeltaTable(lake.table("trades")).transaction_version(progress_key(0)) == 119
    assert stored(lake) == rows
    [done] = compact(lake)
    assert done.after == len({row.trade.traded_at // 86_400_000_000 for row in rows})


def test_two_workers_that_hold_the_same_partition_for_a_moment_store_no_trade_twice(lake):
    rows = as_rows([a_trade(number) for number in range(200)])

    async def scenario():
        tables = [LakeTrades(lake) for _ in range(3)]
        for table in tables:
            await table.open_or_make()

        async def work(table, step):
            for at in range(0, len(rows), step):
                await table.write(rows[at : at + step])

        await asyncio.gather(*(work(table, step) for table, step in zip(tables, (7, 11, 13), strict=True)))

    asyncio.run(scenario())
    assert stored(lake) == rows


def test_a_symbol_is_read_in_the_order_of_the_topic_bounded_by_time(lake):
    trades = [a_trade(number) for number in range(2_000)]
    random.Random(1).shuffle(trades)
    rows = as_rows([*trades, a_trade(0, symbol="binance:ETHUSD")])
    write(lake, rows)
    start, end = a_trade(500).traded_at, a_trade(1_500).traded_at

    async def scenario():
        async with opened(LakeTrades(lake)) as table:
            found = [row async for row in table.read("binance:ETHUSDT", start, end)]
            return found, [row async for row in table.read("nobody:HERE", start, end)], await table.symbols()

    found, nothing, symbols = asyncio.run(scenario())
    assert found == [row for row in rows[:-1] if start <= row.trade.traded_at < end]
    assert (nothing, symbols) == ([], ["binance:ETHUSD", "binance:ETHUSDT"])


def test_trades_taken_away_by_another_writer_end_the_worker_since_the_topic_would_not_bring_them_back(lake):
    async def scenario():
        table = LakeTrades(lake)
        await table.open_or_make()
        await table.write(as_rows([a_trade(0), a_trade(1)]))
        await table.look()
        DeltaTable(lake.table("trades")).delete()
        with pytest.raises(StorageError, match=r"take that back \(RESTORE\), or name another lake") as caught:
            await table.write(as_rows([a_trade(2)], first=2))
        assert not isinstance(caught.value, RetryableError | RowsLostError)
        await table.close()

    asyncio.run(scenario())


def test_duckdb_computes_candles_from_the_table(lake):
    write(lake, as_rows([a_trade(number) for number in range(700)]))
    count, volume, first = (
        delta_in_duckdb.connect()
        .execute(
            "SELECT count(*), sum(CAST(size AS DECIMAL(38, 18))), arg_min(price, (traded_at, sequence)) "
            "FROM delta_scan(?) WHERE day = DATE '2022-01-01'",
            [lake.table("trades")],
        )
        .fetchone()
    )
    assert (count, volume, first) == (700, Decimal("0.000007"), "61837.63")


def test_the_documentations_query_keeps_the_first_of_trades_published_twice(lake):
    rows = as_rows([a_trade(0), a_trade(1), a_trade(0), a_trade(0, symbol="binance:ETHUSD"), a_trade(1)])
    write(lake, rows)
    text = (ROOT / "docs" / "lake.md").read_text()
    query = next(part for part in text.split("\n\n") if "QUALIFY" in part)
    query = query.replace("/data/lake/trades", lake.table("trades"))
    found = delta_in_duckdb.connect().execute(f"SELECT kafka_offset FROM ({query.rstrip(';')}) ORDER BY 1").fetchall()
    assert [offset for (offset,) in found] == [rows[place].offset for place in (0, 1, 3)]


def test_a_lake_that_is_away_is_a_retryable_error_and_there_is_none_to_read_before_the_first_worker(lake):
    async def scenario():
        table = LakeTrades(lake)
        with pytest.raises(StorageError, match="does not exist"):
            await table.open()
        await table.open_or_make()
        away = lake.folder.with_name("away")
        lake.folder.rename(away)
        with pytest.raises(RetryableError):
            await table.write(as_rows([a_trade()]))
        away.rename(lake.folder)
        return await table.write(as_rows([a_trade()]))

    assert asyncio.run(scenario()) == 1


@asynccontextmanager
async def working(lake, log):
    """A worker that has opened the table and is at it; at the end it is told to stop."""
    service = a_service()
    streams = TradeStreams(lake)
    await streams.open()
    task = asyncio.create_task(a_worker(log, streams, service).run())
    yield task
    service.stopping.set()
    await task


@pytest.mark.parametrize("seed", range(3))
def test_wherever_the_worker_is_killed_the_table_equals_the_topic(lake, seed):
    dice = random.Random(seed)
    symbols = ["binance:A", "binance:B", "bitflyer:C"]
    parts = [[a_trade(number, symbol=dice.choice(symbols)) for number in range(60)] for _ in range(3)]
    log = MemoryLog(*([encode_trade(trade) for trade in part] for part in parts), topic=TRADES)

    async def life(crash_in):
        log.restart(crash_in)
        log.commits_to_fail = dice.randrange(2)
        try:
            async with working(lake, log) as task:
                await until(lambda: task.done() or log.all_committed)
        except CrashError:
            return False
        return True

    lives = 0
    while not asyncio.run(life(dice.randrange(12) if lives < 8 else None)):
        lives += 1
    assert lives > 2
    assert stored(lake) == [row for number, part in enumerate(parts) for row in as_rows(part, number)]


def test_what_is_no_trade_is_put_aside_and_the_rest_stored(lake):
    values = [encode_trade(a_trade(0)), b"\xff", None, encode_trade(a_trade(1)).replace(b"61837.63", b"NaN")]
    log = MemoryLog([*values, encode_trade(a_trade(4))], topic=TRADES)

    async def scenario():
        async with working(lake, log) as task:
            await until(lambda: task.done() or log.all_committed)

    asyncio.run(scenario())
    assert stored(lake) == [StoredTrade(0, 0, a_trade(0)), StoredTrade(0, 4, a_trade(4))]
    assert [letter.topic for letter in log.dead] == [TRADES_DEAD] * 3
    assert [letter.value for letter in log.dead] == [b"\xff", None, values[3]]


# The real worker and a real broker.


@contextmanager
def running(lake, settings, log, **environment):
    environment = {
        "ASHI_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "ASHI_STORAGE": f"lake:///{lake.folder}",
        "ASHI_SINK_BATCH_INTERVAL": "200ms",
        "ASHI_SESSION_TIMEOUT": "6s",
        "ASHI_LOG_FORMAT": "json",
        **environment,
    }
    command = [sys.executable, "-m", "ashi_cli.main", "sink", "lake", "--topic", "trades"]
    with log.open("ab") as file:
        child = forked_stages.start(command, cwd=ROOT, stdout=file, stderr=file, env=os.environ | environment)
    try:
        yield child
    except BaseException as error:
        error.add_note(log.read_text())
        raise
    finally:
        child.kill()
        child.wait()


async def publish(settings, messages):
    producer = make_producer(settings)
    await producer.start()
    try:
        sent = []
        for key, value in messages:
            partition = partition_of(key, settings.partitions)
            headers = message_headers(TRADE_SCHEMA)
            sent.append(await producer.send(TRADES, value, key, partition=partition, headers=headers))
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


def as_message(trade):
    return trade.symbol.encode(), encode_trade(trade)


async def everything_is_committed(settings):
    committed, ends = await committed_offsets(settings, GROUP, TRADES), await end_offsets(settings, TRADES)
    return all(committed.get(partition, 0) == end for partition, end in ends.items())


async def topic(settings):
    """The trades of the topic as the table must have them."""
    found = [
        StoredTrade(record.partition, record.offset, decode_trade(record.value))
        async for record in read_topic(settings, TRADES)
        if record.value != b"garbage"
    ]
    return sorted(found, key=lambda row: row[:2])


async def rows_in(lake):
    try:
        async with opened(LakeTrades(lake)) as table:
            return len(await everything(table))
    except StorageError:  # not made yet
        return 0


@pytest.mark.kafka
def test_workers_killed_in_mid_stream_leave_a_table_that_equals_the_topic(kafka_settings, lake, tmp_path):
    log = tmp_path / "worker.log"
    trades = [a_trade(number, symbol=f"binance:S{number % 12}") for number in range(2_400)]
    messages = [as_message(trade) for trade in trades]
    messages[700] = (messages[700][0], b"garbage")

    async def scenario():
        await publish(kafka_settings, messages)
        for rows in (200, 600):
            with running(lake, kafka_settings, log, ASHI_SINK_BATCH_SIZE="20") as child:

                async def far_enough(rows=rows):
                    return await rows_in(lake) >= rows

                await until(far_enough)
                child.kill()
            assert await rows_in(lake) < len(trades) - 1, "killed too late to prove anything"
        with running(lake, kafka_settings, log), running(lake, kafka_settings, tmp_path / "second.log") as child:
            await until(lambda: everything_is_committed(kafka_settings))
            child.terminate()
            assert child.wait(30) == 0
        return await topic(kafka_settings), [record.value async for record in read_topic(kafka_settings, TRADES_DEAD)]

    wanted, dead = asyncio.run(scenario())
    assert len(wanted) == len(trades) - 1
    assert stored(lake) == wanted
    assert set(dead) == {b"garbage"}


@pytest.mark.kafka
def test_a_new_table_is_filled_from_the_beginning_whatever_the_group_has_committed(kafka_settings, lake, tmp_path):
    trades = [a_trade(number) for number in range(100)]

    async def scenario():
        await publish(kafka_settings, map(as_message, trades))
        consumer = make_consumer(kafka_settings, TRADES, group_id=GROUP)
        await consumer.start()
        try:
            assert await commit(consumer, await consumer.end_offsets(consumer.assignment()))
        finally:
            await consumer.stop()

        async def all_there():
            return await rows_in(lake) == len(trades)

        with running(lake, kafka_settings, tmp_path / "worker.log"):
            await until(all_there)

    asyncio.run(scenario())
    assert [row.trade for row in stored(lake)] == trades


@pytest.mark.parametrize(
    ("at_the_place", "begin", "refused"),
    [
        (a_trade(4), 0, None),
        (a_trade(5), 0, "what is there now is another record"),
        (a_trade(4, price=Decimal(1)), 0, "what is there now is another record"),
        (None, 0, "what is there now is another record"),
        (a_trade(5), 5, None),
    ],
    ids=["the-same", "another", "of-another-price", "nothing", "expired"],
)
def test_a_topic_made_anew_that_has_outgrown_the_lake_is_told_by_the_record_stored_last(
    lake, monkeypatch, at_the_place, begin, refused
):
    async def begins(*_):
        return {0: begin}

    async def ends(*_):
        return {0: 900}

    async def read(_settings, _topic, _partition, offsets):
        assert offsets == [4]
        value = at_the_place and encode_trade(at_the_place)
        record = SimpleNamespace(partition=0, offset=4, key=b"binance:ETHUSDT", value=value, headers=())
        return {} if value is None else {4: record}

    for name, fake in (("begin_offsets", begins), ("end_offsets", ends), ("read_at", read)):
        monkeypatch.setattr(trade_streams, name, fake)

    async def scenario():
        streams = TradeStreams(lake)
        await streams.open()
        await streams.streams[0].write(as_rows([a_trade(number) for number in range(5)]))
        try:
            return await streams.is_empty(Settings.from_environment({}))
        finally:
            await streams.close()

    if refused is None:
        assert asyncio.run(scenario()) is False
    else:
        with pytest.raises(StorageError, match=f"up to offset 4, and {refused}.*name another lake"):
            asyncio.run(scenario())


@pytest.mark.kafka
def test_a_topic_that_was_made_anew_is_refused_instead_of_being_left_out(kafka_settings, lake, tmp_path):
    async def make_anew():
        await publish(kafka_settings, map(as_message, [a_trade(number) for number in range(20)]))
        with running(lake, kafka_settings, tmp_path / "worker.log") as child:
            await until(lambda: everything_is_committed(kafka_settings))
            child.terminate()
            assert child.wait(30) == 0
        async with admin_client(kafka_settings) as client:
            await client.delete_topics([TRADES])

            async def is_gone():
                return TRADES not in await client.list_topics()

            await until(is_gone)

    asyncio.run(make_anew())
    create = [sys.executable, "-m", "ashi_cli.main", "topics", "create"]
    environment = {"ASHI_KAFKA_BOOTSTRAP": kafka_settings.kafka_bootstrap, "ASHI_REPLICATION": "1"}
    subprocess.run(create, env=os.environ | environment, check=True, cwd=ROOT, capture_output=True)
    log = tmp_path / "second.log"
    with running(lake, kafka_settings, log) as child:
        assert child.wait(60) == 1
    assert "it was made anew, or is that of another Kafka" in log.read_text()
