"""The end of a run, or of an epoch: nothing is left to do in a group."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import orjson

from ashi.contracts.topics import AGGREGATE_APP, CANDLES, TRADES
from ashi.runtime.kafka.cluster.offsets import committed_offsets, end_offsets
from ashi.runtime.settings import Settings
from rig.fleet import Fleet, PromiseError
from servers.stages import get

DRAIN_S = 120.0


def drain(fleet: Fleet, settings: Settings, sink_groups: Iterable[str]) -> None:
    """Wait until the aggregate workers have read all trades, and each group of sinks all candles."""
    fleet.wait_for_frozen(fleet.workers)
    await_end(fleet, settings, AGGREGATE_APP, TRADES)
    _await_positions(fleet, settings)
    drain_sinks(fleet, settings, sink_groups)


def drain_sinks(fleet: Fleet, settings: Settings, groups: Iterable[str]) -> None:
    """Wait until each group of sinks has read all candles that there are."""
    for group in groups:
        await_end(fleet, settings, group, CANDLES)


def await_end(fleet: Fleet, settings: Settings, group: str, topic: str) -> None:
    """Wait until a group has committed all that is in a topic by now."""
    ends = {at: end for at, end in asyncio.run(end_offsets(settings, topic)).items() if end}
    seen: dict[Any, int] = {}

    def reached() -> bool:
        committed = asyncio.run(committed_offsets(settings, group, topic))
        seen.clear()
        seen.update({at: offset for at, offset in committed.items() if offset})
        return all(seen.get(at, 0) >= end for at, end in ends.items())  # candles of quiet markets may still come

    try:
        fleet.must(reached, DRAIN_S, f"{group} has not read all of {topic}")
    except PromiseError as error:
        raise PromiseError(f"{error}\nends {ends}, committed {seen}") from None
    fleet.timeline(f"{group} has read all of {topic}: {sum(ends.values())} records")


def _await_positions(fleet: Fleet, settings: Settings) -> None:
    """Wait until the owner of each partition says that its state has come to the end.

    Committed offsets alone do not tell: after a reconfiguration they are those of the epoch before, until the new
    state has come further.
    """
    ends = {at: end - 1.0 for at, end in asyncio.run(end_offsets(settings, TRADES)).items() if end}
    seen: dict[int, float] = {}

    def reached() -> bool:
        seen.clear()
        seen.update(_positions(fleet))
        return all(seen.get(number) == end for number, end in ends.items())

    try:
        fleet.must(reached, DRAIN_S, "the state has not come to the end of trades")
    except PromiseError as error:
        raise PromiseError(f"{error}: ashi_position says {seen}, trades ends at {ends}") from None


def _positions(fleet: Fleet) -> dict[int, float]:
    """What the workers that are ready say of their partitions; each of these must say that it lives."""
    positions: dict[int, float] = {}
    for worker in fleet.workers:
        if not worker.ready:
            continue
        first = next(line for line in worker.log.read_bytes().splitlines() if b'"event":"started"' in line)
        address = orjson.loads(first)["metrics"].removesuffix("/metrics")
        if get(f"{address}/live")[0] != 200:
            raise PromiseError(f"{worker.name} does not live: {get(f'{address}/live')}")
        for line in get(f"{address}/metrics")[1].splitlines():
            if line.startswith("ashi_position{"):
                positions[int(line.split('"')[1])] = float(line.split()[-1])
    return positions
