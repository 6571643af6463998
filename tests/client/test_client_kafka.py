"""The readers on a real Kafka."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from contextlib import aclosing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions, RecordsToDelete
from client_kafka import BOUND_S, collect, run, take, versions
from client_samples import BTC, ETH, FIRST_US, MINUTE_US, a_candle, a_gap, a_signal, a_status, send

from ashi.client import (
    Instrument,
    Position,
    kafka_settings,
    read_candles,
    read_feed_gaps,
    read_feed_status,
    read_instruments,
    read_live_candles,
    read_signals,
)
from ashi.contracts import BrokerError, ContractError, StateError, encode_candle
from ashi.contracts.topics import CANDLES, CANDLES_LIVE, topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import admin_client, make_producer, partitions_of_topics
from ashi.runtime.kafka.consuming.follow import TopicFollower
from ashi.runtime.kafka.producing.dead_letters import message_headers
from ashi_cli.onemachine.broker import Broker

if TYPE_CHECKING:
    from ashi.client import Candle, Reader
    from ashi.runtime.settings import Settings

ROOT = Path(__file__).parents[2]


def test_repeats_are_left_out_and_corrections_come(kafka_settings: Settings) -> None:
    async def main() -> list[Candle]:
        sent = [a_candle(0, 5), a_candle(1, 6), a_candle(0, 5), a_candle(1, 4), a_candle(0, 9), a_candle(0, 5)]
        await send(kafka_settings, *sent)
        return await collect(read_candles(kafka_settings, follow=False))

    found = run(main())
    assert versions(found) == [(0, 5), (1, 6), (0, 9)]
    assert found[-1] == a_candle(0, 9)


def test_the_first_of_equal_versions_is_kept(kafka_settings: Settings) -> None:
    async def main() -> None:
        await send(kafka_settings, a_gap(0, 3), a_gap(0, 3), a_gap(0, 2), a_gap(1, 1), a_gap(0, 4))
        gaps = await collect(read_feed_gaps(kafka_settings, follow=False))
        assert gaps == [a_gap(0, 3), a_gap(1, 1), a_gap(0, 4)]

    run(main())


def test_every_status_comes_in_order_and_the_last_counts(kafka_settings: Settings) -> None:
    async def main() -> None:
        await send(kafka_settings, a_status(1), a_status(2), a_status(1, ETH), a_status(2))
        found = await collect(read_feed_status(kafka_settings, symbols=[BTC], follow=False))
        assert found == [a_status(1), a_status(2), a_status(2)]

    run(main())


def test_every_instrument_comes_in_order_and_the_last_counts(kafka_settings: Settings) -> None:
    def instrument(symbol: str, state: Any) -> Instrument:
        return Instrument(symbol, "币安人生", "USDT", Decimal("0.01"), None, state, 10**15)

    async def main() -> None:
        chinese = "binance:币安人生USDT"
        await send(kafka_settings, instrument(chinese, "trading"), instrument(BTC, "trading"))
        await send(kafka_settings, instrument(chinese, "halted"))
        found = await collect(read_instruments(kafka_settings, symbols=[chinese], follow=False))
        assert found == [instrument(chinese, "trading"), instrument(chinese, "halted")]

    run(main())


def test_of_signals_the_newest_comes_and_that_one_is_superseded_is_newer(kafka_settings: Settings) -> None:
    given, taken_back = a_signal(0, 1), a_signal(0, 1, status="superseded")
    anew, corrected = a_signal(0, 1, 1, target="flat"), a_signal(0, 2)
    other = a_signal(0, strategy="ma_cross(fast=3,slow=5)")

    async def main() -> None:
        await send(kafka_settings, given, other, given, taken_back, given, anew, taken_back, corrected, anew)
        found = await collect(read_signals(kafka_settings, strategies=[given.strategy], follow=False))
        assert found == [given, taken_back, anew, corrected]
        assert await collect(read_signals(kafka_settings, symbols=[ETH], follow=False)) == []

    run(main())


def test_only_the_symbols_and_timeframes_that_were_asked_for_come(kafka_settings: Settings) -> None:
    async def main() -> None:
        candles = [
            a_candle(minute, 1, symbol, frame) for minute in range(3) for symbol in (BTC, ETH) for frame in ("1m", "5m")
        ]
        await send(kafka_settings, *candles)
        found = await collect(read_candles(kafka_settings, symbols=[ETH], timeframes=["1m"], follow=False))
        assert found == [a_candle(minute, 1, ETH) for minute in range(3)]
        assert len(await collect(read_candles(kafka_settings, follow=False))) == 6 + 2

    run(main())


def test_candles_in_progress_come_by_symbol_and_timeframe_each_in_a_greater_version(kafka_settings: Settings) -> None:
    def update(candle: Candle) -> tuple[str, str, bytes]:
        return CANDLES_LIVE, f"{candle.symbol}/{candle.timeframe}", encode_candle(candle)

    async def main() -> None:
        slashed = "binance:ETH/USDT"
        sent = [a_candle(0, version, symbol) for version in (3, 3, 2, 4) for symbol in (BTC, slashed)]
        sent += [a_candle(0, 5, slashed, "5m"), a_candle(1, 2, slashed), a_candle(0, 5, slashed)]
        await send(kafka_settings, *map(update, sent))

        async def read(**wanted: Any) -> list[Candle]:
            return await collect(read_live_candles(kafka_settings, follow=False, **wanted))

        minutes = [a_candle(0, 3, slashed), a_candle(0, 4, slashed), a_candle(1, 2, slashed), a_candle(0, 5, slashed)]
        assert await read(symbols=[slashed], timeframes=["1m"]) == minutes
        found = await read(symbols=[slashed])
        assert [each for each in found if each.timeframe == "1m"] == minutes
        assert a_candle(0, 5, slashed, "5m") in found
        assert await read(timeframes=["5m"]) == [a_candle(0, 5, slashed, "5m")]
        assert await read(symbols=[BTC]) == [a_candle(0, 3), a_candle(0, 4)]
        assert len(await read()) == 7
        await send(kafka_settings, (CANDLES_LIVE, BTC, encode_candle(a_candle(1))))  # under another key
        with pytest.raises(ContractError, match=f"the record's key .* is not its candle's b'{BTC}/1m'"):
            await read()
        assert len(await read(symbols=[BTC])) == 2

    run(main())


def test_a_reader_that_follows_gets_what_is_written_later(kafka_settings: Settings) -> None:
    async def main() -> None:
        await send(kafka_settings, a_candle(0))
        async with read_candles(kafka_settings) as candles:
            assert versions(await take(candles, 1)) == [(0, 1)]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await anext(candles)
            await send(kafka_settings, a_candle(1), a_candle(0, 2))
            assert versions(await take(candles, 2)) == [(1, 1), (0, 2)]
        with pytest.raises(StopAsyncIteration):
            await anext(candles)

    run(main())


def test_to_stop_waiting_loses_no_message(kafka_settings: Settings) -> None:
    async def impatient(candles: Reader[Candle], count: int) -> list[Candle]:
        found: list[Candle] = []
        deadline = time.monotonic() + BOUND_S
        while len(found) < count and time.monotonic() < deadline:
            try:
                async with asyncio.timeout(0.003):
                    found.append(await anext(candles))
            except TimeoutError:
                continue
        return found

    async def main() -> None:
        async with read_candles(kafka_settings) as candles:
            reading = asyncio.create_task(impatient(candles, 200))
            for first in range(0, 200, 20):
                await send(kafka_settings, *(a_candle(minute) for minute in range(first, first + 20)))
            assert versions(await reading) == [(minute, 1) for minute in range(200)]

    run(main())


def test_a_stored_position_goes_on_with_the_next_message_and_none_is_missed(kafka_settings: Settings) -> None:
    async def main() -> None:
        sent = [a_candle(minute, 1, symbol) for minute in range(50) for symbol in (BTC, ETH)]
        await send(kafka_settings, *sent)
        found, text = [], ""
        for _ in range(7):
            since: Position | Literal["beginning"] = Position.from_json(text) if text else "beginning"
            async with read_candles(kafka_settings, since=since, follow=False) as candles:
                async for candle in candles:
                    found.append(candle)
                    if len(found) % 17 == 0:
                        break
                text = candles.position.to_json()
        key = lambda candle: (candle.symbol, candle.open_time)  # noqa: E731
        assert sorted(found, key=key) == sorted(sent, key=key)
        for symbol in (BTC, ETH):
            assert versions([candle for candle in found if candle.symbol == symbol]) == [(m, 1) for m in range(50)]

    run(main())


def test_since_now_gives_only_what_comes_and_its_position_is_known_at_once(kafka_settings: Settings) -> None:
    async def main() -> None:
        await send(kafka_settings, a_candle(0))
        async with read_candles(kafka_settings, since="now") as candles:
            position = candles.position
            await send(kafka_settings, a_candle(1))
            assert versions(await take(candles, 1)) == [(1, 1)]
        assert versions(await collect(read_candles(kafka_settings, since=position, follow=False))) == [(1, 1)]
        assert await collect(read_candles(kafka_settings, since="now", follow=False)) == []

    run(main())


def test_since_a_time_begins_with_what_was_written_then(kafka_settings: Settings) -> None:
    async def main() -> None:
        await send(kafka_settings, a_candle(0))
        await asyncio.sleep(0.01)
        [written] = await send(kafka_settings, a_candle(1))
        await send(kafka_settings, a_candle(2))
        at = datetime.fromtimestamp(written.timestamp / 1_000, UTC)
        for since in (at, written.timestamp * 1_000):
            assert versions(await collect(read_candles(kafka_settings, since=since, follow=False)))[0] == (1, 1)
        later = int((time.time() + 3_600) * 1_000_000)
        assert await collect(read_candles(kafka_settings, since=later, follow=False)) == []

    run(main())


def test_the_end_is_where_the_topic_ended_when_reading_began(kafka_settings: Settings) -> None:
    async def main() -> None:
        await send(kafka_settings, *(a_candle(minute) for minute in range(10)))
        async with aclosing(read_candles(kafka_settings, follow=False)) as candles:
            found = await take(candles, 1)
            await send(kafka_settings, *(a_candle(minute) for minute in range(10, 20)))
            found += [candle async for candle in candles]
            assert versions(found) == [(minute, 1) for minute in range(10)]
        assert len(await collect(read_candles(kafka_settings, since=candles.position, follow=False))) == 10

    run(main())


def test_a_record_that_is_no_message_is_an_error_with_its_place(kafka_settings: Settings) -> None:
    async def main() -> None:
        _, bad = await send(kafka_settings, a_candle(0), (CANDLES, BTC, b"{}"))
        candles = read_candles(kafka_settings, follow=False)
        assert versions(await take(candles, 1)) == [(0, 1)]
        with pytest.raises(ContractError, match=f"{CANDLES}/{bad.partition}/{bad.offset} cannot be read: not a candle"):
            await anext(candles)
        again = read_candles(kafka_settings, since=candles.position, follow=False)
        with pytest.raises(ContractError, match="with on_unreadable"):
            await anext(again)

    run(main())


def test_unreadable_records_are_handed_over_and_counted_and_reading_goes_on(kafka_settings: Settings) -> None:
    async def main() -> None:
        _, bad, *_ = await send(kafka_settings, a_candle(0), (CANDLES, BTC, b"{}"), (CANDLES, ETH, b"?"), a_candle(1))
        taken: list[Any] = []
        candles = read_candles(kafka_settings, symbols=[BTC], follow=False, on_unreadable=taken.append)
        assert versions(await collect(candles)) == [(0, 1), (1, 1)]
        [record] = taken
        assert (record.topic, record.partition, record.offset) == (CANDLES, bad.partition, bad.offset)
        assert (record.key, record.value) == (BTC.encode(), b"{}")
        assert "not a candle" in str(record.error)
        assert candles.unreadable == 1
        await send(kafka_settings, (CANDLES, ETH, encode_candle(a_candle(2))))
        everything = read_candles(kafka_settings, since=candles.position, follow=False, on_unreadable=taken.append)
        assert versions(await collect(everything)) == []
        assert "is not its candle's symbol 'bitflyer:BTC_JPY'" in str(taken[-1].error)

    run(main())


def test_a_message_of_a_later_version_is_no_candle_however_familiar_it_looks(kafka_settings: Settings) -> None:
    """It is not guessed at: an error with its place and both versions, or handed over, and reading goes on."""

    async def main() -> None:
        producer = make_producer(kafka_settings)
        await producer.start()
        try:
            _, later, _ = [
                await producer.send_and_wait(
                    CANDLES, encode_candle(a_candle(number)), BTC.encode(), headers=message_headers(schema)
                )
                for number, schema in enumerate(["ashi.candle.v1", "ashi.candle.v2", "ashi.candle.v1"])
            ]
        finally:
            await producer.stop()
        place = f"{CANDLES}/{later.partition}/{later.offset}"
        both = "'ashi.candle.v2' is not known here: this version of Ashi reads 'ashi.candle.v1'"
        with pytest.raises(ContractError, match=f"{place} cannot be read: .*{both}"):
            await collect(read_candles(kafka_settings, follow=False))
        taken: list[Any] = []
        candles = read_candles(kafka_settings, follow=False, on_unreadable=taken.append)
        assert versions(await collect(candles)) == [(0, 1), (2, 1)]
        assert [str(record.error).count(both) for record in taken] == [1]

    run(main())


def test_a_missing_topic_is_named(kafka_settings: Settings) -> None:
    async def main() -> None:
        async with admin_client(kafka_settings) as client:
            await client.delete_topics([CANDLES])
            deadline = time.monotonic() + BOUND_S
            while CANDLES in await partitions_of_topics(client):
                assert time.monotonic() < deadline, "the topic does not go away"
                await asyncio.sleep(0.05)
        with pytest.raises(BrokerError, match="has no topic 'candles': run `ashi topics create`"):
            await anext(read_candles(kafka_settings))

    run(main())


def test_a_position_whose_records_have_expired_is_an_error_and_not_a_hole(kafka_settings: Settings) -> None:
    async def main() -> None:
        [*_, last] = await send(kafka_settings, *(a_candle(minute) for minute in range(10)))
        at = TopicPartition(CANDLES, last.partition)
        async with admin_client(kafka_settings) as client:
            await client.delete_records({at: RecordsToDelete(before_offset=5)})
        for offset, words in ((3, "from offset 3 to 4 have expired"), (11, "ends at 10, before 11")):
            with pytest.raises(StateError, match=words):
                await anext(read_candles(kafka_settings, since=Position(CANDLES, {at.partition: offset})))
        with pytest.raises(StateError, match="no such partition"):
            await anext(read_candles(kafka_settings, since=Position(CANDLES, {99: 0})))
        assert versions(await collect(read_candles(kafka_settings, follow=False))) == [(m, 1) for m in range(5, 10)]

    run(main())


def test_records_that_expire_before_a_reader_comes_to_them_are_an_error(kafka_settings: Settings) -> None:
    async def main() -> None:
        [first] = await send(kafka_settings, a_candle(0))
        at = TopicPartition(CANDLES, first.partition)
        follower = TopicFollower(kafka_settings, CANDLES)
        try:
            await follower.open("beginning")
            await follower.poll(5)
            assert follower.last_ends[at.partition] == follower.positions[at.partition] == 1
            follower._consumer.pause(at)
            await send(kafka_settings, *(a_candle(minute) for minute in range(1, 10)))
            async with admin_client(kafka_settings) as client:
                await client.delete_records({at: RecordsToDelete(before_offset=5)})
            follower._consumer.seek(at, 1)  # as if nothing had been fetched ahead
            follower._consumer.resume(at)
            with pytest.raises(StateError, match=f"{CANDLES}/{at.partition} .*offset 1, .* is not in the log"):
                await follower.poll(BOUND_S)
        finally:
            await follower.close()

    run(main())


def test_partitions_that_are_added_are_read_from_their_beginning(kafka_settings: Settings) -> None:
    async def main() -> None:
        follower = TopicFollower(kafka_settings, CANDLES, metadata_max_age_ms=200)
        try:
            await follower.open("beginning")
            await send(kafka_settings, a_candle(0))
            seen = [(record.partition, record.value) for record in await follower.poll(BOUND_S)]
            async with admin_client(kafka_settings) as client:
                await client.create_partitions({CANDLES: NewPartitions(40)})
                # Who asks too soon is told of the old ones, and would send to no other.
                while len((await client.describe_topics([CANDLES]))[0]["partitions"]) < 40:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            symbols = [f"venue:M{number}" for number in range(60)]
            await send(kafka_settings, *(a_candle(1, 1, symbol) for symbol in symbols))
            deadline = time.monotonic() + BOUND_S
            while len(seen) < 61 and time.monotonic() < deadline:
                seen += [(record.partition, record.value) for record in await follower.poll(0.2)]
            assert len(seen) == len({value for _, value in seen}) == 61
            assert max(partition for partition, _ in seen) >= kafka_settings.partitions
        finally:
            await follower.close()

    run(main())


@pytest.mark.kafka
def test_a_broker_that_restarts_is_waited_for(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.start(child=True, fresh=True)
    port = int(broker.bootstrap.rpartition(":")[2])
    settings = kafka_settings(broker.bootstrap)

    async def main() -> None:
        await create_topics(settings, topic_specs(2, settings.timeframes))
        await send(settings, *(a_candle(minute, 1, symbol) for minute in range(5) for symbol in (BTC, ETH)))
        async with read_candles(settings) as candles:
            found = await take(candles, 10)
            broker.stop()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2):
                    await anext(candles)
            broker.start(port=port, child=True)
            await send(settings, *(a_candle(minute, 1, symbol) for minute in range(5, 10) for symbol in (BTC, ETH)))
            found += await take(candles, 10)
        for symbol in (BTC, ETH):
            assert versions([candle for candle in found if candle.symbol == symbol]) == [(m, 1) for m in range(10)]

    try:
        run(main())
    finally:
        broker.stop()


def test_the_example_of_the_documentation_runs_and_goes_on_where_it_was(
    kafka_settings: Settings, tmp_path: Path
) -> None:
    page = (ROOT / "docs/client.md").read_text(encoding="utf-8")
    with_asyncio, without = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    environment = os.environ | {"ASHI_KAFKA_BOOTSTRAP": kafka_settings.kafka_bootstrap}

    def example_prints(example: str = with_asyncio) -> list[str]:
        command = [sys.executable, "-c", example]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=BOUND_S
        )
        assert done.stderr == ""
        return done.stdout.splitlines()

    run(send(kafka_settings, a_candle(0, 1), a_candle(1, 1), a_candle(0, 3), a_candle(2, 1, ETH)))
    assert example_prints() == [f"{FIRST_US} 3 1.5", f"{FIRST_US + MINUTE_US} 1 1.5"]
    run(send(kafka_settings, a_candle(2, 7)))
    assert example_prints() == [f"{FIRST_US + 2 * MINUTE_US} 7 1.5"]
    assert example_prints(without) == [
        f"{FIRST_US} 1 1",
        f"{FIRST_US + MINUTE_US} 1 1",
        f"{FIRST_US} 3 3",
        f"{FIRST_US + 2 * MINUTE_US} 7 7",
    ]
