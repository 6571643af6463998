"""Ashi and other engines on one topic, side by side: trades a second, CPU, memory, and whether the candles are right.

    .venv/bin/python benchmarks/side_by_side.py [--quick] [--engines ashi,flink] [--rounds 3] [--plot FILE] [--json]

Records are as `ashi ingest` writes them, headers and compression too; candles of 1m, 5m and 1h by event time, late by
up to 2 s. Each run has the same topic: a copy of one broker's folder, with a broker of its own. Rounds are interleaved,
and what is printed are medians. The rate is that of trades whose minute's candle has been told, from the first candle
to the last, so that start-up is left out; an engine that needs longer than `--bound` is measured that far. Every candle
is held against a count of its own (`market.py`). Which engines there are, and how they are had: `engines.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from arguments import one_of, seconds, several
from bars import draw
from engines import ENGINES, Launch, MissingError
from market import Market
from side_run import PARTITIONS, TIMEFRAMES, Run, measure
from trades import send_in_batches

from ashi.contracts.timeframe import parse_timeframes
from ashi.contracts.topics import TRADES, topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.kafka.connections.clients import make_producer
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.broker import Broker
from ashi_cli.values import positive

SYMBOLS = 8
PUBLISHED_AT_ONCE = 200_000
FLINK = ("flink", "flink x2")


async def publish(settings: Settings, market: Market) -> None:
    """Publish the market's trades."""
    producer = make_producer(settings)
    await producer.start()
    messages = market.messages()
    try:
        while batch := list(islice(messages, PUBLISHED_AT_ONCE)):
            await asyncio.gather(*await send_in_batches(producer, TRADES, batch))
    finally:
        await producer.stop()


def make_topic(folder: Path, market: Market) -> int:
    """A broker's folder with the market's trades in it; the bytes of the topic."""
    broker = Broker(folder)
    broker.start(child=True, fresh=True)
    try:
        settings = Settings.from_environment({"ASHI_KAFKA_BOOTSTRAP": broker.bootstrap})
        asyncio.run(create_topics(settings, topic_specs(PARTITIONS, parse_timeframes(TIMEFRAMES))))
        asyncio.run(publish(settings, market))
    finally:
        broker.stop()
    return sum(log.stat().st_size for log in folder.rglob(f"{TRADES}-[0-9]*/*.log"))


def summary(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A row for each engine: medians over its rounds, and the ratio to Flink's best of the same round."""
    best = {each.round: max(run.rate for run in runs if run.round == each.round and run.engine in FLINK)
            for each in runs if each.engine in FLINK and each.rate}  # fmt: skip
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(run.engine for run in runs):
        own = [run for run in runs if run.engine == name and run.rate]
        if not own:
            reason = next(run.reason for run in runs if run.engine == name)
            rows.append({"engine": name, "reason": reason})
            continue
        ratios = [run.rate / best[run.round] for run in own if run.round in best]
        rows.append(
            {
                "engine": name,
                "rounds": len(own),
                "trades_per_second": statistics.median(run.rate for run in own),
                "to_flink": statistics.median(ratios) if ratios else None,
                "cpu_us_per_trade": statistics.median(run.cpu_us for run in own),
                "memory_mb": statistics.median(run.memory_mb for run in own),
                "first_candle_s": statistics.median(run.first_candle_s for run in own),
                "other_cores": statistics.median(run.other_cores for run in own),
                "is_whole": all(run.is_whole for run in own),
                **{each: max(getattr(run, each) for run in own) for each in ("candles", "inexact", "wrong", "missing")},
            }
        )
    return rows


def verdict(row: Mapping[str, Any]) -> str:
    """What a row says of its candles."""
    if row["wrong"] or row["missing"]:
        return f"{row['wrong']:,} wrong, {row['missing']:,} missing of {row['candles'] + row['missing']:,}"
    exact = "right" if row["inexact"] else "exact"
    return f"{row['candles']:,} {exact}{'' if row['is_whole'] else ', as far as it got'}"


def show(rows: Sequence[Mapping[str, Any]], missing: Mapping[str, str]) -> None:
    """Print the table, as Markdown."""
    print(
        "| engine | trades/s | to Flink's best | CPU µs a trade | memory MB | first candle s | other cores | candles |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        if "reason" in row:
            print(f"| {row['engine']} | failed: {row['reason']} |")
            continue
        ratio = "" if row["to_flink"] is None else f"{row['to_flink']:.2f}"
        print(
            f"| {row['engine']} | {row['trades_per_second']:,.0f} | {ratio} | {row['cpu_us_per_trade']:.2f} "
            f"| {row['memory_mb']:,.0f} | {row['first_candle_s']:.1f} | {row['other_cores']:.2f} | {verdict(row)} |"
        )
    for name, reason in missing.items():
        print(f"| {name} | not to be had here: {reason} |")


def parse_arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trades", type=positive, help="10,000,000, or 1,000,000 if quick")
    parser.add_argument("--rounds", type=positive, help="3, or 1 if quick")
    parser.add_argument("--bound", type=seconds, help="seconds that a run may take: 60, or 20 if quick")
    parser.add_argument("--engines", type=several(one_of(*ENGINES)), default=list(ENGINES), help=", ".join(ENGINES))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--plot", type=Path, help="write a picture (SVG)")
    parser.add_argument("--json", action="store_true", help="print one JSON object of all runs, and no table")
    options = parser.parse_args()
    options.trades = options.trades or (1_000_000 if options.quick else 10_000_000)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.bound = options.bound or (20.0 if options.quick else 60.0)
    return options


def main() -> int:
    """Measure and print."""
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    launches: dict[str, Launch] = {}
    missing: dict[str, str] = {}
    for name in options.engines:
        try:
            launches[name] = ENGINES[name].prepare()
        except MissingError as error:
            missing[name] = str(error)
            print(f"{name}: {error}", file=sys.stderr)
    market = Market(options.trades, SYMBOLS, PARTITIONS)
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="ashi-bench-") as name:
        seed = Path(name) / "seed"
        size = make_topic(seed, market)
        expected = market.expected()
        print(f"{options.trades:,} trades, {size:,} bytes, {len(expected):,} candles", file=sys.stderr)
        for number in range(options.rounds):
            # Each round begins with another engine, so that none is always the first.
            names = list(launches)[number:] + list(launches)[:number]
            for each in names:
                run = measure(
                    ENGINES[each], launches[each], seed, market, expected=expected, number=number, bound_s=options.bound
                )
                runs.append(run)
                print(f"round {number + 1} {each}: {run.rate:,.0f}/s {run.cpu_us:.2f} µs {run.reason}", file=sys.stderr)
    runs.sort(key=lambda run: list(launches).index(run.engine))
    rows = summary(runs)
    if options.plot:
        options.plot.write_text(draw([row for row in rows if "reason" not in row]))
    if options.json:
        print(json.dumps({"runs": [asdict(run) for run in runs], "summary": rows, "missing": missing}))
    else:
        show(rows, missing)
    return 0


if __name__ == "__main__":
    sys.exit(main())
