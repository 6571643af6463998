"""The end of an hour of 10,000 symbols by itself: how fast a worker closes 30,000 candles and has them acknowledged.

    .venv/bin/python benchmarks/closing.py [--symbols N] [--ends N] [--json]

What an aggregate worker does at that moment, with its own rooms and a real broker and nothing else: the windows of
three timeframes (1m, 5m, 1h) of each symbol close by the time, those with trades, or flat ones of symbols that are
quiet; their candles are encoded, sent as batches and acknowledged. The first end is left out: nothing is warm then.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import statistics
import sys
import time
from decimal import Decimal
from types import SimpleNamespace

from scale import HERE, broker, environment_of
from trades import names_of

from ashi.contracts import Trade
from ashi.runtime.kafka.connections.clients import make_producer
from ashi.runtime.kafka.producing.record_batches import RecordBatches
from ashi.runtime.settings import Settings
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.core.window_state import WindowRules
from ashi_aggregate.output import CANDLES_AT_ONCE, Output
from ashi_cli.values import positive

HOUR_US = 3_600_000_000
START_US = 1_700_000_000_000_000 // HOUR_US * HOUR_US


def trade(symbol: str, number: int, traded_at: int) -> Trade:
    """A trade like any other."""
    price, size = Decimal(2_600_000 + number % 100_000).scaleb(-3), Decimal(1 + number % 10**9).scaleb(-8)
    return Trade(symbol, str(number), price, size, "buy" if number % 2 else "sell", traded_at, traded_at, number)


async def close(output: Output, symbols: list[SymbolAggregator], clock: int) -> tuple[int, float, float]:
    """Close all that is due at `clock` (µs): how many candles, seconds until all are acknowledged, and of CPU."""
    began, cpu_s = time.perf_counter(), time.process_time()
    count, candles = 0, []
    for place, aggregator in enumerate(symbols, 1):
        candles += aggregator.close_due(clock)
        if len(candles) > CANDLES_AT_ONCE - len(aggregator.rows) or place == len(symbols):
            await output.send_candles(candles, "closed")
            count, candles = count + len(candles), []
    await output.acknowledged()
    return count, time.perf_counter() - began, time.process_time() - cpu_s


async def measure(settings: Settings, names: list[str], ends: int, *, is_quiet: bool) -> dict:
    """Ends of hours, one after the other; in each hour every symbol trades twice, or never again after the first."""
    rules = WindowRules(settings.timeframes[0], max_flat=settings.flat_candles if is_quiet else 0)
    producer = make_producer(settings)
    await producer.start()
    batches = RecordBatches(producer, settings)
    output = Output(SimpleNamespace(send=batches.send, partitions_of=batches.partitions_of), rules, settings.timeframes)
    symbols = [SymbolAggregator(settings.timeframes, rules) for _ in names]
    found = []
    number = 0
    try:
        for end in range(1, ends + 2):
            end_us = START_US + end * HOUR_US
            if end == 1 or not is_quiet:
                for name, aggregator in zip(names, symbols, strict=True):
                    number += 2
                    trades = [trade(name, number + each, end_us - 30_000_000 + each) for each in range(2)]
                    aggregator.on_trades(trades, [number, number + 1])
            if end > 1 and is_quiet:
                # All but the windows that end with the hour: else those of a whole hour would close at once.
                await close(output, symbols, end_us - 1_000_000)
            found.append(await close(output, symbols, end_us + settings.allowed_lateness_us))
    finally:
        batches.close()
        await producer.stop()
    counted = found[1:]
    took = sorted(seconds for _, seconds, _ in counted)
    candles = sum(count for count, _, _ in counted)
    return {
        "candles": candles // len(counted),
        "candles_per_second": candles / sum(took),
        "cpu_us": sum(cpu_s for _, _, cpu_s in counted) / candles * 1e6,
        "median_ms": statistics.median(took) * 1e3,
        "most_ms": took[-1] * 1e3,
    }


def main() -> int:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=positive, default=10_000)
    parser.add_argument("--ends", type=positive, default=20)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a broker that has just started makes it complain
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = names_of(arguments.symbols)
    with broker(environment_of(HERE)) as (settings, _, _):
        results = {
            kind: asyncio.run(measure(settings, names, arguments.ends, is_quiet=kind == "flat"))
            for kind in ("traded", "flat")
        }
    if arguments.json:
        print(json.dumps(results))
        return 0
    print(f"{'windows':<8} {'candles':>8} {'candles/s':>10} {'CPU µs':>7} {'median ms':>10} {'most ms':>8}")
    for kind, row in results.items():
        print(
            f"{kind:<8} {row['candles']:>8,} {row['candles_per_second']:>10,.0f} {row['cpu_us']:>7.1f} "
            f"{row['median_ms']:>10.0f} {row['most_ms']:>8.0f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
