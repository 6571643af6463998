"""Messages and offsets that are written together, by one process at a time."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from ashi.contracts.errors import BrokerUnreachableError, InstanceTakenError
from ashi.contracts.topics import CANDLES, FEED_GAPS
from ashi.runtime.kafka.cluster.offsets import Committed, committed
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.kafka.producing import transactions
from ashi.runtime.kafka.producing.transactions import Message, TransactionalWriter

if TYPE_CHECKING:
    from ashi.runtime.settings import Settings

ID = "ashi-strategy-tested"


def messages(*values: str) -> list[Message]:
    return [Message(FEED_GAPS, value.encode(), value.encode(), [("schema", b"s")]) for value in values]


async def written(settings: Settings) -> list[str]:
    return sorted([record.value.decode() async for record in read_topic(settings, FEED_GAPS)])


def test_a_step_stands_there_whole_and_whoever_starts_later_shuts_out_the_one_before(
    kafka_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    not_retrieved: list[Any] = []
    before = ["a", "b", *(f"c{number:02}" for number in range(25))]

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: not_retrieved.append(context))
        first = TransactionalWriter(kafka_settings, ID, whose="strategy tested")
        second = TransactionalWriter(kafka_settings, ID, whose="strategy tested")
        try:
            await first.start()
            await first.write(messages("a", "b"), {(CANDLES, 0): (7, "seven"), (CANDLES, 1): (9, "")})
            for number in range(25):  # one after the other: Kafka is still ending the one before
                await first.write(messages(f"c{number:02}"), {(CANDLES, 0): (7, "seven")})
            await first.write([], {(CANDLES, 1): (10, "ten")})
            assert await written(kafka_settings) == before
            assert await committed(kafka_settings, ID, CANDLES) == {0: Committed(7, "seven"), 1: Committed(10, "ten")}
            assert "NotEnoughReplicas" not in caplog.text
            # As when a process is killed within a step.
            await first._producer.begin_transaction()
            await (await first._producer.send(FEED_GAPS, b"half", b"half"))
            await second.start()
            await second.write(messages("d"), {(CANDLES, 0): (8, "")})
            assert await written(kafka_settings) == [*before, "d"]
            first._producer._txn_manager.begin_transaction = lambda: None  # its half goes on
            with pytest.raises(InstanceTakenError, match=r"another process runs strategy tested .*started later"):
                await first.write(messages("e"), {(CANDLES, 0): (9, "")})
            assert await written(kafka_settings) == [*before, "d"]
            assert (await committed(kafka_settings, ID, CANDLES))[0] == Committed(8, "")
        finally:
            await first.close()
            await second.close()
        gc.collect()

    asyncio.run(main())
    assert not_retrieved == []


def test_a_step_that_kafka_aborts_for_its_time_is_not_taken_for_another_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from aiokafka.errors import ProducerFenced

    from ashi.runtime.settings import Settings

    now_s = 100.0
    monkeypatch.setattr(transactions.time, "monotonic", lambda: now_s)

    async def fenced(*_: Any, **__: Any) -> None:
        nonlocal now_s
        now_s += transactions.TIMEOUT_S
        raise ProducerFenced

    async def main() -> None:
        writer = TransactionalWriter(Settings.from_environment({}), ID, whose="strategy tested")
        monkeypatch.setattr(writer._producer, "begin_transaction", fenced)
        with pytest.raises(BrokerUnreachableError, match="was away for longer than a step may take"):
            await writer.write(messages("a"))
        await writer.close()

    asyncio.run(main())
