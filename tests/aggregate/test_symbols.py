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
from kafka_topics.simulated_log import Broker, Crash, Worker
from samples.hypothesis_strategies import START

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


def clocks_of_due(aggregators: dict[str, SymbolAggregator], now: int) -> dict[str, int]:
    """The rule, as it is said: by the stream time and what has passed since the last record, but never beyond now."""
    clocks = {}
    for name, aggregator in aggregators.items():
        row = aggregator.rows[0].row
        clock = max(min(row.stream_time + now - row.appended_at, now), row.stream_time)
        if any(each.is_due(clock) for each in aggregator.rows):
            clocks[name] = clock
    return clocks


@pytest.mark.parametrize("seed", range(100))
def test_the_symbols_that_are_due_are_those_that_a_look_at_each_would_find(seed):
    rng = random.Random(seed)
    names = [f"binance:S{number}" for number in range(5)]
    symbols = Symbols(TIMEFRAMES, RULES)
    aggregators: dict[str, SymbolAggregator] = {}
    written: dict[str, list[bytes]] = {}
    now, offset = START, 0
    for _ in range(rng.randint(20, 60)):
        now += rng.choice([0, 100_000, 5_000_000, 61_000_000, -3_000_000])
        for name in rng.sample(names, rng.randint(0, 3)):
            offset += 1
            # Now and then a venue's clock is ahead of the broker's, or a record has no append time.
            at, appended = now - START + rng.randint(-9_000_000, 2_000_000), rng.choice([now, now - 500_000, -1000])
            each = make_trade(max(at, 0), offset, name)
            if name not in symbols:
                symbols[name] = SymbolAggregator(TIMEFRAMES, RULES)
                aggregators[name] = SymbolAggregator(TIMEFRAMES, RULES)
            for aggregator in (symbols[name], aggregators[name]):
                aggregator.on_trades([each], [offset], appended)
        rows = {name: [encode(row) for row in each.state_rows()] for name, each in aggregators.items()}
        if rng.random() < 0.2:
            written = rows
        if written and rng.random() < 0.1:  # it is resumed after a crash, from rows of which some are older
            symbols = Symbols(TIMEFRAMES, RULES)
            for name, newer in rows.items():
                stored = [rng.choice(pair) for pair in zip(newer, written.get(name, newer), strict=True)]
                symbols.take_up(name, [read_stored(row) for row in stored])
                aggregators[name] = SymbolAggregator(TIMEFRAMES, RULES, [decode_row(row) for row in stored])
        due = symbols.find_due(now)
        assert dict(due) == clocks_of_due(aggregators, now)
        assert symbols.find_due(now) == due
        if rng.random() < 0.7:  # unless something is unread
            for name, clock in due:
                assert symbols[name].close_due(clock) == aggregators[name].close_due(clock)


def test_while_nothing_can_be_due_no_symbol_is_looked_at(monkeypatch):
    symbols = Symbols(TIMEFRAMES, RULES)
    for number in range(20):
        symbols[f"binance:S{number}"] = aggregator = SymbolAggregator(TIMEFRAMES, RULES)
        aggregator.on_trades([make_trade(number * 1_000_000, 1, f"binance:S{number}")], [number], START)
    minute = START - START % 60_000_000 + 60_000_000
    looks = []
    next_close = Symbols._next_close

    def counted(self: Symbols, symbol: str) -> Any:
        looks.append(symbol)
        return next_close(self, symbol)

    monkeypatch.setattr(Symbols, "_next_close", counted)
    for now in (minute - 40_000_000, minute - 1, minute + RULES.lateness_us - 1):
        assert symbols.find_due(now) == []
        looks.clear()
        assert symbols.find_due(now) == []
        assert not looks
    assert len(symbols["binance:S7"].rows) == 3
    assert symbols.find_due(minute) == []
    assert set(looks) == {"binance:S7"}, "one that was looked up may be due sooner"
    older = SymbolAggregator(TIMEFRAMES, RULES)
    older.on_trades([make_trade(-60_000_000, 1, "binance:A")], [0], START - 60_000_000)
    symbols.take_up("binance:A", [read_stored(encode(row)) for row in older.state_rows()])
    assert [symbol for symbol, _ in symbols.find_due(minute)] == ["binance:A"]
    looks.clear()
    assert [symbol for symbol, _ in symbols.find_due(minute)] == ["binance:A"]
    assert not looks, "asked again at once"
    del symbols["binance:A"]
    assert not symbols.find_due(minute)
    assert len(symbols.find_due(minute + RULES.lateness_us)) > 10


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
