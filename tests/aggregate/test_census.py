"""The list of what a state must hold: names once, positions in each marker, and whose list is whose."""

from __future__ import annotations

import asyncio
import copy
from decimal import Decimal

import pytest

from ashi.contracts import Trade, parse_timeframes
from ashi.contracts.errors import StateError
from ashi.contracts.topics import MARKERS_TABLE, changelog_topic
from ashi_aggregate import WindowRules
from ashi_aggregate.core.codec import Marker, decode_list, decode_marker, encode
from ashi_aggregate.partition import marker_key, read_marker
from kafka_topics.simulated_log import Broker, SimulatedTable, Worker
from samples.hypothesis_strategies import START

TIMEFRAMES = parse_timeframes("1m,5m")
RULES = WindowRules(TIMEFRAMES[0])
MARKERS = changelog_topic(MARKERS_TABLE), 0
SYMBOLS = 300


def publish(broker: Broker, symbols: int, times: int = 1) -> None:
    for _ in range(times):
        number = len(broker.trades[0])
        broker.publish(
            [
                Trade(f"binance:SYMBOL{n}USDT", str(number + n), Decimal(5), Decimal(1), None, START, START, number + n)
                for n in range(symbols)
            ],
            START // 1000,
        )


async def a_worker(broker: Broker) -> Worker:
    worker = Worker(broker, TIMEFRAMES, RULES)
    await worker.start()
    return worker


async def read_all(worker: Worker) -> None:
    while await worker.read(0, 10_000):
        pass
    await worker.pipeline.checkpoint()


def lists(broker: Broker) -> dict[bytes, bytes | None]:
    """The lists of symbols that stand in the changelog, by key."""
    newest = {key or b"": value for key, value, _ in broker.topics[MARKERS] if b"-symbols-" in (key or b"")}
    return {key: value for key, value in newest.items() if value is not None}


def listed(broker: Broker) -> dict[str, int] | None:
    """What the marker of partition 0 lists for whoever resumes now."""
    marker = read_marker(SimulatedTable(MARKERS_TABLE, broker), 0, RULES.epoch)
    assert marker is not None
    return marker.positions


def test_names_are_written_when_symbols_come_to_be_and_a_marker_takes_five_bytes_for_each() -> None:
    async def scenario() -> None:
        broker = Broker(partitions=1)
        worker = await a_worker(broker)
        for _ in range(5):
            publish(broker, SYMBOLS)
            await read_all(worker)
        assert len(lists(broker)) == 1
        assert sum(b"-symbols-" in (key or b"") for key, _, _ in broker.topics[MARKERS]) == 1
        publish(broker, SYMBOLS + 1)
        await read_all(worker)
        assert sum(b"-symbols-" in (key or b"") for key, _, _ in broker.topics[MARKERS]) == 2
        assert len(lists(broker)) == 1
        end = len(broker.trades[0])
        assert listed(broker) == {f"binance:SYMBOL{n}USDT": end - SYMBOLS - 1 + n for n in range(SYMBOLS + 1)}
        key, marker, _ = broker.topics[MARKERS][-1]
        assert key == marker_key(0)
        assert marker is not None
        assert len(marker) < 5 * SYMBOLS + 400
        as_before = Marker(end - 1, positions=listed(broker))
        assert len(marker) * 5 < len(encode(as_before))

    asyncio.run(scenario())


def test_the_list_of_a_state_before_stays_until_no_marker_can_need_it() -> None:
    async def scenario() -> None:
        broker = Broker(partitions=1)
        publish(broker, 3)
        first = await a_worker(broker)
        await read_all(first)
        [of_first] = lists(broker)
        second = await a_worker(broker)
        publish(broker, 1)
        await second.read(0, 1)
        await second.pipeline.checkpoint()
        of_second = set(lists(broker)) - {of_first}
        assert len(of_second) == 1
        # The first, declared dead, sends its last marker late, and compaction leaves no other.
        [late] = [each for each in broker.topics[MARKERS] if each[0] == marker_key(0)][:1]
        compacted = copy.deepcopy(broker)
        compacted.topics[MARKERS][:] = [each for each in broker.topics[MARKERS] if each[0] != marker_key(0)] + [late]
        assert listed(compacted) == {f"binance:SYMBOL{n}USDT": n for n in range(3)}
        await a_worker(compacted)
        broker.now_us += 3_601 * 1_000_000
        publish(broker, 1)
        await read_all(second)
        assert set(lists(broker)) == of_second
        key, value, headers = late
        broker.keep(*MARKERS, key, value, headers)
        assert listed(broker) == {"binance:SYMBOL0USDT": 4, "binance:SYMBOL1USDT": 1, "binance:SYMBOL2USDT": 2}
        await a_worker(broker)

    asyncio.run(scenario())


def test_a_worker_that_took_nothing_in_leaves_the_list_of_the_marker_alone() -> None:
    async def scenario() -> None:
        broker = Broker(partitions=1)
        publish(broker, 3)
        await read_all(await a_worker(broker))
        before = lists(broker)
        idle = Worker(broker, TIMEFRAMES, RULES, quiet_close=True)
        await idle.start()
        await idle.pipeline.checkpoint()  # writes a marker for the clock's sake, no further than the first one's
        assert before.items() <= lists(broker).items()
        assert listed(broker) == {f"binance:SYMBOL{n}USDT": n for n in range(3)}

    asyncio.run(scenario())


@pytest.mark.parametrize("shortened", [False, True])
def test_a_marker_whose_list_is_lost_is_a_state_that_lacks_what_it_had(shortened: bool) -> None:
    async def scenario() -> None:
        broker = Broker(partitions=1)
        publish(broker, 3)
        await read_all(await a_worker(broker))
        [(name, value)] = lists(broker).items()
        log = broker.topics[MARKERS]
        names = decode_list(value or b"")
        names.symbols.pop()
        shorter = encode(names)
        log[:] = [
            (key, shorter if key == name else at, headers) for key, at, headers in log if shortened or key != name
        ]
        broker.earliest[0] = 1
        refused = Worker(broker, TIMEFRAMES, RULES, quiet_close=True)
        refused.pipeline._named = lambda topic: f"staging.{topic}"  # as by ASHI_TOPIC_PREFIX
        with pytest.raises(
            StateError,
            match=r"lists 3 symbols, and the record with their names "
            r"\(topic staging\.ashi-aggregate-markers-changelog\) is not there",
        ):
            await refused.start()
        broker.earliest[0] = 0
        rebuilt = await a_worker(broker)
        assert rebuilt.next == {0: 0}
        await read_all(rebuilt)
        assert listed(broker) == {f"binance:SYMBOL{n}USDT": n for n in range(3)}

    asyncio.run(scenario())


def test_a_marker_of_before_is_read_with_the_positions_that_it_has_itself() -> None:
    async def scenario() -> None:
        broker = Broker(partitions=1)
        publish(broker, 3)
        await read_all(await a_worker(broker))
        marker = decode_marker(broker.topics[MARKERS][-1][1] or b"")
        positions = {f"binance:SYMBOL{n}USDT": n for n in range(3)}
        old = Marker(marker.durable_offset, marker.begins_at, 0, marker.topic_id, marker.records, positions)
        broker.topics[MARKERS][:] = [(marker_key(0), encode(old), [])]
        assert listed(broker) == positions
        await a_worker(broker)
        old.positions = positions | {"binance:SYMBOL9USDT": 1}
        broker.topics[MARKERS][:] = [(marker_key(0), encode(old), [])]
        broker.earliest[0] = 1
        with pytest.raises(StateError, match="that of binance:SYMBOL9USDT"):
            await a_worker(broker)

    asyncio.run(scenario())
