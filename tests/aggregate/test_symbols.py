"""A resumed state decodes a symbol's rows when they are needed, and ends as if it had decoded them all at once."""

from __future__ import annotations

import asyncio
import copy
import random
from collections import defaultdict
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from ashi.contracts import Trade, parse_timeframes
from ashi.contracts.errors import StateError
from ashi.contracts.topics import MARKERS_TABLE, changelog_topic
from ashi_aggregate import WindowRules
from ashi_aggregate import symbols as symbols_module
from ashi_aggregate.census import find_listed
from ashi_aggregate.core.codec import decode_marker, decode_row, encode, read_stored
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.core.window_state import StateRow
from ashi_aggregate.symbols import Symbols
from simulated_log import Broker, Crash, Worker
from strategies import START

TIMEFRAMES = parse_timeframes("1m,5m,1h")
RULES = WindowRules(TIMEFRAMES[0])


def make_trade(at_us: int, number: int, symbol: str) -> Trade:
    at = START + at_us
    return Trade(symbol, str(number), Decimal(5 + number % 7), Decimal(1), "buy", at, at, number)


def by_key(broker: Broker) -> dict[Any, list[Any]]:
    """What was written, by topic, partition and key: between symbols there is no order. Of markers, what they list."""
    written = defaultdict(list)
    for (topic, partition), messages in broker.topics.items():
        lists: dict[Any, Any] = {}
        home = partition or 0
        markers: Any = SimpleNamespace(rows={home: lists}.get)
        for key, value, headers in messages:
            said: Any = value
            if "-symbols-" in (key or b"").decode():
                lists[key] = value
                continue
            if topic == changelog_topic(MARKERS_TABLE) and value is not None:
                marker = find_listed(home, decode_marker(value), markers)
                said = (marker.durable_offset, marker.begins_at, marker.records, marker.positions)
            elif topic.endswith("-changelog") and value is not None:
                said = decode_row(value)
            written[topic, partition, key].append((said, headers))
    return written


async def resume_and_go_on(broker: Broker, seed: int, *, eagerly: bool) -> None:
    rng = random.Random(seed)
    worker = Worker(broker, TIMEFRAMES, RULES, quiet_close=True, seed=seed)
    await worker.start()
    if eagerly:
        for state in worker.pipeline._states.values():
            assert len(dict(state.symbols)) == len(state.symbols)
    for _ in range(rng.randint(0, 9)):  # time passes, and some are due
        broker.now_us += rng.choice((rng.randint(1, 400), 1, 20)) * 1_000_000
        await worker.pipeline.checkpoint()
    for partition in range(broker.partitions):
        await worker.read(partition, rng.randint(1, 9))
    await worker.pipeline.checkpoint()
    await worker.run_to_end()
    broker.now_us += rng.randint(1, 4_000) * 1_000_000
    await worker.pipeline.checkpoint()


@pytest.mark.parametrize("seed", range(40))
def test_a_lazily_resumed_state_ends_in_the_same_candles_and_rows_as_an_eagerly_decoded_one(seed):
    async def scenario() -> tuple[Broker, Broker]:
        rng = random.Random(seed)
        names = [f"binance:S{number}" for number in range(6)]
        broker = Broker(partitions=2)
        at = START
        for number in range(60):
            at += rng.choice((0, 300_000, 20_000_000))
            broker.publish([make_trade(at - START, number, rng.choice(names))], at // 1000)
        broker.now_us = at
        worker = Worker(broker, TIMEFRAMES, RULES, seed=seed, crash_after=rng.randint(5, 250))
        try:
            await worker.start()
            await worker.run_to_end()
        except Crash:
            pass
        eager, lazy = broker, copy.deepcopy(broker)
        await resume_and_go_on(eager, seed, eagerly=True)
        await resume_and_go_on(lazy, seed, eagerly=False)
        return eager, lazy

    eager, lazy = asyncio.run(scenario())
    assert by_key(lazy) == by_key(eager)


def test_what_is_resumed_is_decoded_by_its_first_trade_and_by_nothing_else(monkeypatch):
    decoded = []

    def counted(value: bytes) -> StateRow:
        row = decode_row(value)
        decoded.append(row.symbol)
        return row

    async def scenario() -> None:
        broker = Broker(partitions=1)
        names = [f"binance:S{number}" for number in range(50)]
        broker.publish([make_trade(0, number, name) for number, name in enumerate(names)], START // 1000)
        worker = Worker(broker, TIMEFRAMES, RULES)
        await worker.start()
        await worker.run_to_end()
        monkeypatch.setattr(symbols_module, "decode_row", counted)
        broker.now_us = START + 1_000_000
        again = Worker(broker, TIMEFRAMES, RULES, quiet_close=True)
        await again.start()
        await again.pipeline.checkpoint()
        assert not decoded
        broker.publish([make_trade(0, 77, names[7])], START // 1000)
        await again.run_to_end()
        assert set(decoded) == {names[7]}

    asyncio.run(scenario())


def test_rows_that_are_stored_are_symbols_like_others():
    def rows_of(name: str) -> list[StateRow]:
        aggregator = SymbolAggregator(TIMEFRAMES, RULES, complete_from=START)
        aggregator.on_trades([make_trade(0, 1, name)], [5], START)
        return aggregator.state_rows()

    symbols = Symbols(TIMEFRAMES, RULES)
    assert not symbols
    for name in ("binance:A", "binance:B"):
        symbols.take_up(name, [read_stored(encode(row)) for row in rows_of(name)])
    torn = [read_stored(encode(row)) for row in rows_of("binance:C")]
    symbols.take_up("binance:C", [*torn[:2], None])
    assert set(symbols) == {"binance:A", "binance:B", "binance:C"}
    assert len(symbols) == 3
    assert "binance:B" in symbols
    assert "binance:X" not in symbols
    assert symbols.get("binance:X") is None
    assert symbols["binance:A"] is symbols["binance:A"]
    assert symbols["binance:A"].state_rows() == rows_of("binance:A")
    assert symbols["binance:C"].state_rows()[2] == StateRow(complete_from=START), "it begins where the others did"
    assert len(symbols) == 3
    symbols["binance:B"] = symbols["binance:A"]
    assert len(symbols) == 3
    for name in list(symbols):
        del symbols[name]
    assert not symbols
    with pytest.raises(KeyError):
        symbols["binance:A"]
    broken = read_stored(encode(rows_of("binance:A")[0]))
    broken.value = broken.value[:-1]
    symbols.take_up("binance:A", [broken, *torn[1:]])
    with pytest.raises(StateError, match="cannot be read"):
        symbols["binance:A"]
