"""What must be true in the end: the trades are the venue's, and the candles of every store the oracle's of them."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from ashi.contracts import decode_trade
from ashi.contracts.topics import CANDLES_DEAD, TRADES, TRADES_DEAD, TRADES_LATE
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.settings import Settings
from ashi_simulator.executions import TrueTrade, place_of, true_trades
from ashi_simulator.markets.ongoing import OngoingMarkets
from oracle import Key, seconds
from rig.ending import drain, drain_sinks
from rig.foreign_reader import read_partition
from rig.rows import Record, differences, expected_rows, late_places, read_rows
from soak.deployment import HORIZON_US, LATENESS_US, TIMEFRAMES, VENUE, Deployment
from soak.faults import NO_TRADE

QUIET_S = 12.0
"""After the last trade: by then the clock has closed the last windows but the longest ones, and sinks have written."""
PROCESSES = 2


class Numbers(NamedTuple):
    """Of a run."""

    trades: int
    repeated: int
    """Read again from Kafka's end, as after a worker was killed: they count once."""
    late: int
    rows: dict[str, int]


class Verdict(NamedTuple):
    """Of one symbol."""

    trades: int
    repeated: int
    late: int
    wrong: list[str]


def judge(deployment: Deployment) -> tuple[Numbers, list[str]]:
    """Stop the load, let everything come to its end, and hold what is stored against the trades, and these against the
    venue's. Gives numbers and what is wrong, in sentences."""
    fleet, settings = deployment.fleet, deployment.settings
    fleet.stop(deployment.workers("ingest"))
    fleet.wait(QUIET_S)
    drain(fleet, settings, [store.group for store in deployment.stores])
    fleet.stop(deployment.workers("aggregate"))
    drain_sinks(fleet, settings, [store.group for store in deployment.stores])
    fleet.stop(fleet.workers)
    stores = {name: by_symbol(asyncio.run(read_rows(url))) for name, url in deployment.urls.items()}
    rows = {name: sum(map(len, found.values())) for name, found in stores.items()}
    deployment.timeline(f"read {rows} rows")
    wrong = [
        f"{topic} has {len(foreign)} records, such as {foreign[0][:200]!r}"
        for topic in (TRADES_DEAD, CANDLES_DEAD)
        if (foreign := [value for value in _values(settings, topic) if value != NO_TRADE])
    ]
    letters_late = len(_values(settings, TRADES_LATE))
    work = [
        partial(
            judge_symbol,
            settings.kafka_bootstrap,
            symbol,
            partition_of(symbol.encode(), settings.partitions),
            (deployment.seed, deployment.market_rate, deployment.markets),
            {name: found.get(symbol, {}) for name, found in stores.items()},
            deployment.directory,
        )
        for symbol in deployment.symbols
    ]
    # Not forks: the clients of this process have threads.
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        verdicts = list(pool.map(call, work))
    for symbol, verdict in zip(deployment.symbols, verdicts, strict=True):
        wrong += [f"{symbol}: {sentence}" for sentence in verdict.wrong]
    late = sum(verdict.late for verdict in verdicts)
    if late != letters_late:
        wrong.append(f"{late} trades come too late to count, and {TRADES_LATE} has {letters_late}")
    numbers = Numbers(
        sum(verdict.trades for verdict in verdicts), sum(verdict.repeated for verdict in verdicts), late, rows
    )
    deployment.timeline(f"{numbers}")
    return numbers, wrong


def _values(settings: Settings, topic: str) -> list[bytes]:
    """All that stands in a topic."""
    partitions = range(settings.partitions)
    return [each.value for number in partitions for each in read_partition(settings.kafka_bootstrap, topic, number)]


def call(work: Any) -> Verdict:
    """A part of the judgement, in a process of its own."""
    verdict: Verdict = work()
    return verdict


def by_symbol(rows: Mapping[Key, Any]) -> dict[str, dict[Key, Any]]:
    """The rows of a store, symbol by symbol."""
    parted: dict[str, dict[Key, Any]] = defaultdict(dict)
    for key, row in rows.items():
        parted[key[0]][key] = row
    return parted


def judge_symbol(
    bootstrap: str,
    symbol: str,
    partition: int,
    venue: tuple[int, int, Sequence[str]],
    stores: Mapping[str, dict[Key, Any]],
    evidence: Path,
) -> Verdict:
    """Hold one symbol's trades against the venue's, and its rows in each store against the oracle's."""
    key = symbol.encode()
    records = [
        Record((partition, each.offset), b"", decode_trade(each.value))
        for each in read_partition(bootstrap, TRADES, partition)
        if each.key == key
    ]
    wrong = _unlike_the_venue(symbol, records, venue)
    expected = expected_rows(records, TIMEFRAMES, HORIZON_US, 0, LATENESS_US)
    newest = max(record.trade.traded_at for record in records if record.trade is not None)
    late = late_places(records, TIMEFRAMES[0], HORIZON_US)
    for name, found in stores.items():
        # What the clock has closed after the last trade is not told by trades.
        timely = {at: row for at, row in found.items() if at[2] + seconds(at[1]) * 1_000_000 + LATENESS_US <= newest}
        file = evidence / f"differences-{name}-{symbol.replace(':', '-')}.txt"
        wrong += [f"{name}: {sentence}" for sentence in differences(expected, timely, records, [], file)]
    ids = len({record.trade.trade_id for record in records if record.trade is not None})
    return Verdict(ids, len(records) - ids, len(late), wrong)


def _unlike_the_venue(symbol: str, records: Sequence[Record], venue: tuple[int, int, Sequence[str]]) -> list[str]:
    """What the venue traded and the topic lacks, or has otherwise. The market is a function of the time."""
    seed, rate, markets = venue
    trades = {int(record.trade.trade_id): record.trade for record in records if record.trade is not None}
    first, last = min(trades), max(trades)
    if missing := sorted(set(range(first, last + 1)) - trades.keys()):
        return [f"{len(missing)} trades of the venue are missing, such as {missing[:5]}"]
    known = OngoingMarkets(VENUE, markets, seed=seed, rate=rate).history(symbol.partition(":")[2]).known(sys.maxsize)
    begin = place_of(known, first)
    executions = (known[place] for place in range(begin, begin + last - first + 1))
    unlike = [
        (true, trades[int(true.trade_id)])
        for true in true_trades(VENUE, symbol, executions)
        if any(getattr(true, name) != getattr(trades[int(true.trade_id)], name) for name in TrueTrade._fields)
    ]
    return [f"{len(unlike)} trades are not the venue's, such as {unlike[0]}"] if unlike else []
