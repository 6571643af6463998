"""A fetch is held for as long as it is worth its while: the busier the worker, the longer."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from ashi_aggregate.cpu_share import LOOK_EVERY_S
from ashi_aggregate.faust.fetch_pace import MOST_BYTES, FetchPace

RATE = 200_000
"""Bytes a second."""


class Machine:
    """A process that takes `core` of a core, and what its brokers send it."""

    def __init__(self, core: float, nodes: int = 1) -> None:
        self.core = core
        self.nodes = nodes
        self.now_s = 100.0
        self.used_s = 7.0
        self.pace = FetchPace(process_s=lambda: self.used_s, clock_s=lambda: self.now_s)

    def fetch(self, seconds: float, rate: float = RATE, every_s: float = 0.05) -> int:
        """So long at such a rate, a fetch of each broker every so often; the least bytes of the next one."""
        for _ in range(round(seconds / every_s)):
            self.now_s += every_s
            self.used_s += self.core * every_s
            for node in range(self.nodes):
                self.pace.saw(node, round(rate * every_s / self.nodes))
        return self.pace.min_bytes


def test_a_worker_with_time_to_waste_waits_for_next_to_nothing() -> None:
    assert Machine(core=0.005).fetch(5.0, rate=1_000) == 1
    assert Machine(core=1.0).fetch(0.5) == 1, "at first it is not known how much comes"


@pytest.mark.parametrize("core", [0.1, 0.3, 0.5])
def test_a_fetch_brings_what_comes_in_a_tenth_of_a_second_times_the_part_of_a_core(core: float) -> None:
    assert Machine(core).fetch(5.0) == pytest.approx(RATE * 0.1 * core, rel=0.1)


def test_each_of_several_brokers_is_asked_for_its_part() -> None:
    assert Machine(0.5, nodes=4).fetch(5.0) == pytest.approx(RATE * 0.1 * 0.5 / 4, rel=0.1)


def test_no_fetch_waits_for_more_than_one_partition_can_bring() -> None:
    assert Machine(core=1.0).fetch(5.0, rate=100_000_000) == MOST_BYTES


def test_what_was_busy_and_is_quiet_now_is_found_out_within_two_looks() -> None:
    machine = Machine(core=1.0)
    machine.fetch(5.0, rate=100_000_000)
    machine.core = 0.01
    assert machine.fetch(2 * LOOK_EVERY_S + 0.1, rate=1_000) == 1


def test_the_client_asks_for_it_in_its_next_fetch_and_its_answers_come_through() -> None:
    def response(size: int, key: int = 1) -> SimpleNamespace:
        parts: list[tuple[object, ...]] = [(0, 0, 9, 9, [], -1, b"x" * size), (1, 0, 9, 9, [], -1, None)]
        return SimpleNamespace(API_KEY=key, topics=[("trades", parts)])

    async def scenario() -> None:
        now_s = 0.0
        answers = [response(50_000), SimpleNamespace(API_KEY=3), response(150_000)]
        given = list(answers)

        async def send(node: int, request: str, **options: bool) -> SimpleNamespace:
            assert (node, request, options) == (4, "fetch", {"group": True})
            return given.pop(0)

        consumer = SimpleNamespace(_client=SimpleNamespace(send=send), _fetcher=SimpleNamespace(_fetch_min_bytes=1))
        FetchPace(process_s=lambda: now_s / 2, clock_s=lambda: now_s).watch(consumer)
        for answer in answers:
            now_s += 1.0
            assert await consumer._client.send(4, "fetch", group=True) is answer
        # 50,000 bytes in the first second, 150,000 in the two after it, each with half a core
        assert consumer._fetcher._fetch_min_bytes == 150_000 // 2 // 20

    asyncio.run(scenario())
