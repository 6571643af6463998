"""Held against the oracle while everything goes on: what was stored since the last look."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple

from ashi.contracts import decode_trade
from ashi.contracts.topics import AGGREGATE_APP, TRADES
from ashi.runtime.kafka.cluster.offsets import end_offsets
from ashi.runtime.kafka.connections.clients import partition_of
from oracle import Key, seconds
from rig.ending import await_end, drain_sinks
from rig.foreign_reader import read_partition
from rig.rows import Record, differences, expected_rows, read_rows
from soak.deployment import HORIZON_US, LATENESS_US, Deployment
from soak.judgement import PROCESSES, by_symbol

TIMEFRAMES: Final = ["1s", "1m"]
"""Those held against the oracle at each look; the end of a run looks at all of them."""
LOOK_BACK_US: Final = 60_000_000
"""Windows that were open at the last look are of this one."""
BEFORE_US: Final = 10_000_000
"""By when trades are read before the first window: the clock by which they are late or not begins there."""
LOOKS: Final = 3
"""A window that late trades came into meanwhile is another at the next look; one that is wrong stays so."""


class Check(NamedTuple):
    """Of one look: how many candles each store had to have, and what is wrong, in sentences."""

    rows: int
    wrong: list[str]


def check(deployment: Deployment, since_us: int) -> Check:
    """Wait until what was published by now is stored, and hold the rows of windows since then against the oracle."""
    fleet, settings = deployment.fleet, deployment.settings
    found = Check(0, [])
    for _ in range(LOOKS):
        ends = asyncio.run(end_offsets(settings, TRADES))
        await_end(fleet, settings, AGGREGATE_APP, TRADES)
        drain_sinks(fleet, settings, [store.group for store in deployment.stores])
        found = _look(deployment, since_us, ends)
        if not found.wrong:
            break
    return found


def _look(deployment: Deployment, since_us: int, ends: Mapping[int, int]) -> Check:
    partitions: dict[int, list[str]] = defaultdict(list)
    for symbol in deployment.symbols:
        partitions[partition_of(symbol.encode(), deployment.settings.partitions)].append(symbol)
    stores = {name: by_symbol(asyncio.run(read_rows(url, is_filled=True))) for name, url in deployment.urls.items()}
    work = [
        partial(
            _check_partition,
            deployment.bootstrap,
            partition,
            ends[partition],
            {name: {symbol: found.get(symbol, {}) for symbol in symbols} for name, found in stores.items()},
            since_us,
            deployment.directory,
        )
        for partition, symbols in partitions.items()
    ]
    # Not forks: the clients of this process have threads.
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(_call, work))
    return Check(sum(part.rows for part in parts), [sentence for part in parts for sentence in part.wrong])


def _call(work: Callable[[], Check]) -> Check:
    return work()


def _check_partition(
    bootstrap: str,
    partition: int,
    end: int,
    stores: Mapping[str, Mapping[str, dict[Key, Any]]],
    since_us: int,
    evidence: Path,
) -> Check:
    """Hold the rows of a partition's symbols in each store against its trades before an offset."""
    begin_us = since_us - since_us % (seconds(TIMEFRAMES[-1]) * 1_000_000) - LOOK_BACK_US
    records: dict[str, list[Record]] = defaultdict(list)
    for each in read_partition(bootstrap, TRADES, partition, (begin_us - BEFORE_US) // 1_000, end):
        records[each.key.decode()].append(Record((partition, each.offset), b"", decode_trade(each.value)))
    rows, wrong = 0, []
    for symbol, known in records.items():
        newest_us = max(record.trade.traded_at for record in known if record.trade is not None)

        def is_looked_at(at: Key, newest_us: int = newest_us) -> bool:
            ended_us = at[2] + seconds(at[1]) * 1_000_000
            return at[1] in TIMEFRAMES and at[2] >= begin_us and ended_us + LATENESS_US <= newest_us

        expected = expected_rows(known, TIMEFRAMES, HORIZON_US, 0, LATENESS_US)
        right = {at: row for at, row in expected.items() if is_looked_at(at)}
        rows += len(right)
        for name, found in stores.items():
            held = {at: row for at, row in found[symbol].items() if is_looked_at(at)}
            file = evidence / f"differences-{name}-{symbol.replace(':', '-')}.txt"
            wrong += [f"{symbol} in {name}: {sentence}" for sentence in differences(right, held, known, [], file)]
    return Check(rows, wrong)
