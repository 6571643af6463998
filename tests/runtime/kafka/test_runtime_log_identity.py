"""A log that was cut or made anew is told from the one that was read."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import pytest
from aiokafka.admin import RecordsToDelete
from aiokafka.structs import TopicPartition

from ashi.contracts.topics import TRADES
from ashi.runtime.kafka.cluster.log_identity import (
    Difference,
    Fingerprint,
    Standing,
    difference,
    differences,
    fingerprint_of,
    log_probe,
    observe,
    thin_out,
)
from ashi.runtime.kafka.connections.clients import admin_client, make_producer
from kafka_topics.fresh_topics import PARTITIONS
from kafka_topics.made_anew import make_anew


@dataclass
class Kept:
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int


def test_a_fingerprint_is_the_same_in_every_process_and_another_for_any_other_record() -> None:
    record = Kept(7, b"k", b"v", 1_700_000_000_000)
    assert fingerprint_of(record) == Fingerprint(7, 1_700_000_000_000, 0xDA68A1A7)
    others = [
        replace(record, key=b"kv", value=b""),
        replace(record, key=None, value=b"kv"),
        replace(record, value=b"w"),
        replace(record, timestamp=record.timestamp + 1),
    ]
    assert len({fingerprint_of(each).checksum for each in [record, *others]}) == 5


def test_what_has_expired_is_no_difference_and_what_is_gone_or_another_is() -> None:
    old, middle, last = (Fingerprint(offset, 1, offset) for offset in (3, 50, 99))
    other = Fingerprint(50, 2, 7)
    assert difference([old, middle, last], Standing(10, 100, {50: middle, 99: last})) is None
    assert difference([last, middle], Standing(10, 100, {50: other, 99: last})) == Difference(middle, other, 100)
    assert difference([last, middle], Standing(10, 99, {50: middle})) == Difference(last, None, 99)
    assert difference([last, middle], Standing(10, 200, {99: last})) == Difference(middle, None, 200)
    assert "now the log ends at offset 99" in str(Difference(last, None, 99))


def test_of_a_long_log_few_fingerprints_are_kept_some_at_every_distance() -> None:
    kept: list[Fingerprint] = []
    for offset in range(0, 200_000, 7):
        kept = thin_out([*kept, Fingerprint(offset, 0, 0)])
        assert kept[-1].offset == offset
        assert len(kept) <= 20
        for distance in (2**power for power in range(5, 17)):
            if offset > 4 * distance:
                assert any(distance <= offset - each.offset < 4 * distance for each in kept), (offset, distance)


@pytest.mark.kafka
def test_the_records_that_were_read_are_told_from_those_of_a_topic_made_anew(kafka_settings) -> None:
    async def publish(count: int) -> list[Any]:
        producer = make_producer(kafka_settings)
        await producer.start()
        sent = [
            await producer.send_and_wait(TRADES, key=b"k", value=b"%d" % n, partition=n % 2) for n in range(2 * count)
        ]
        await producer.stop()
        return sent

    async def look(known: dict[int, list[Fingerprint]]) -> dict[int, Difference]:
        async with log_probe(kafka_settings, TRADES) as probe:
            return differences(known, await observe(probe, known))

    async def scenario() -> None:
        await publish(60)
        async with log_probe(kafka_settings, TRADES) as probe:
            before = await probe.standing({0: [59, 0, 31], 1: [5, 58, 60, 400], 2: [0]})
            identity = await probe.identity()
            assert (before[1].begin, before[1].end, sorted(before[1].found)) == (0, 60, [5, 58])
            assert (before[2], sorted(before[0].found)) == ((0, 0, {}), [0, 31, 59])
            known = {partition: list(standing.found.values()) for partition, standing in before.items()}
            assert await probe.standing({0: [59, 0, 31], 1: [5, 58, 60, 400], 2: [0]}) == before
            assert identity == await probe.identity()
        assert identity.topic_id is not None
        assert identity.leader_epochs.keys() == set(range(PARTITIONS))
        assert await look(known) == {}
        async with admin_client(kafka_settings) as client:
            await client.delete_records({TopicPartition(TRADES, 0): RecordsToDelete(32)})
        assert await look(known) == {}
        await make_anew(kafka_settings, TRADES)
        await publish(59)
        async with log_probe(kafka_settings, TRADES) as probe:
            assert (await probe.identity()).topic_id != identity.topic_id
        found = await look(known)
        assert {partition: (each.expected.offset, each.end) for partition, each in found.items()} == {
            0: (0, 59),
            1: (5, 59),
        }
        last = before[0].found[59]
        assert await look({0: [last]}) == {0: Difference(last, None, 59)}

    asyncio.run(scenario())
