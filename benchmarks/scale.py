"""One aggregate worker with 10, 100, 1,500 and 10,000 symbols: what grows with their number, and what does not.

    .venv/bin/python benchmarks/scale.py [--quick] [--against REF] [--plot FILE] [--symbols 10,1500] [--json]

For each number of symbols, on a real broker and with three timeframes (1m, 5m, 1h):

- *dense*: trades of 2,000 a second of data time, read as fast as possible: trades/s and CPU for a trade.
- *sparse*: each symbol trades once a minute, so that more than one candle closes for a trade (a third of them flat):
  candles/s and CPU for a candle.
- *recovery*: SIGKILL, and another worker started at once, until it is ready. Session: until the group lets go of the
  dead one (less what the start of the new one takes meanwhile); start: the process, until the group knows it; join;
  restore: the changelogs and the rest. `--changelog N` lets the changelogs have N records, by repeating their rows.
- *live*: trades as they happen, at 2,000 and then 20,000 a second, a tenth of the symbols quiet after one first trade.
  First comes the end of an hour, which ends the windows of all three timeframes, then that of minutes (`--minutes`),
  with flat candles of the quiet symbols. The close delay is the append time of a candle less the end of its window less
  the allowed lateness. State: records, and bytes as they stand on the broker's disk, per second between two ends.

Memory is the resident set of the worker, the greatest seen. `--against` measures another version of Ashi too (any git
reference), right beside this one for each number of symbols, so that what else the machine does meets both. `--quick`
takes two minutes and leaves most out; the whole takes a quarter of an hour. The numbers are those of this machine now.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from arguments import several
from scale_live import Live, live
from scale_plot import draw
from scale_replay import Replay, replay

from ashi.contracts.topics import topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.broker import Broker
from ashi_cli.values import positive

TIMEFRAMES = "1m,5m,1h"
SYMBOLS = (10, 100, 1_500, 10_000)
QUICK_SYMBOLS = (10, 1_500)
HERE = Path(__file__).parents[1]
PACKAGES = (
    ".",
    *("ingest", "aggregate", "sinks", "series", "audit", "history", "operations", "simulator", "strategies", "chart"),
    "cli",
)


@contextmanager
def checkout(reference: str) -> Iterator[Path]:
    """The files of another version, for as long as they are needed."""
    with tempfile.TemporaryDirectory(prefix="ashi-bench-") as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(HERE), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), reference], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def environment_of(tree: Path) -> dict[str, str]:
    """The environment in which processes, started in the folder `tree`, run the code that is there."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(str((tree / each).resolve()) for each in PACKAGES)}
    asked = [sys.executable, "-c", "import ashi, ashi_aggregate, ashi_cli; print(ashi_aggregate.__file__)"]
    found = subprocess.run(asked, env=env, cwd=tree, check=True, capture_output=True, text=True).stdout.strip()
    if not Path(found).is_relative_to(tree.resolve()):
        raise SystemExit(f"the code that would be measured is {found}, and not that in {tree}")
    return env


@contextmanager
def broker(env: dict[str, str], **settings: str) -> Iterator[tuple[Settings, dict[str, str], Path]]:
    """Settings and environment of a worker with a new, empty broker, and the folder of that."""
    with tempfile.TemporaryDirectory(prefix="ashi-bench-") as directory:
        kafka = Broker(Path(directory))
        kafka.start(child=True, fresh=True)
        try:
            env = env | {
                "ASHI_KAFKA_BOOTSTRAP": kafka.bootstrap,
                "ASHI_TIMEFRAMES": TIMEFRAMES,
                "ASHI_LOG_FORMAT": "json",
                **settings,
            }
            now = Settings.from_environment(env)
            asyncio.run(create_topics(now, topic_specs(now.partitions, now.timeframes)))
            yield now, env, Path(directory)
        finally:
            kafka.stop()


def measure(tree: Path, symbols: int, options: argparse.Namespace) -> tuple[Replay, list[Live]]:
    """All that is measured of one version with so many symbols."""
    env = environment_of(tree)
    with broker(env, ASHI_QUIET_CLOSE="off") as (settings, worker_env, folder):
        replayed = asyncio.run(
            replay(
                settings,
                worker_env,
                tree,
                folder,
                symbols=symbols,
                dense=options.trades,
                sparse=options.trades * 3 // 10,
                changelog=options.changelog,
            )
        )
    if not options.rates:
        return replayed, []
    with broker(env) as (settings, worker_env, folder):
        lived = asyncio.run(
            live(settings, worker_env, tree, folder, symbols=symbols, rates=options.rates, minutes=options.minutes)
        )
    return replayed, lived


COLUMNS = (
    f"{'version':<10} {'symbols':>7} {'trades/s':>9} {'CPU µs':>7} {'candles/s':>10} {'CPU µs':>7} {'MB':>5}   "
    f"{'session':>7} {'start':>6} {'join':>6} {'restore':>8} {'ready':>6} {'CPU s':>6} {'of records':>11}"
)
LIVE_COLUMNS = (
    f"{'version':<10} {'symbols':>7} {'trades/s':>9} {'core':>5} {'MB':>9}   {'records/s':>10} {'KB/s':>8}   "
    f"{'candles':>8} {'flat':>6} {'p50 ms':>7} {'p99 ms':>7} {'most':>7}"
)


def print_replay(version: str, symbols: int, each: Replay) -> None:
    """One line of the first table."""
    print(
        f"{version:<10} {symbols:>7,} {each.trades_per_second:>9,.0f} {each.cpu_us_per_trade:>7.2f} "
        f"{each.candles_per_second:>10,.0f} {each.cpu_us_per_candle:>7.1f} {each.memory_mb:>5.0f}   "
        f"{each.session_s:>7.1f} {each.start_s:>6.1f} {each.join_s:>6.1f} {each.restore_s:>8.1f} {each.ready_s:>6.1f} "
        f"{each.recovery_cpu_s:>6.1f} {each.changelog_records:>11,}",
        flush=True,
    )


def print_live(version: str, symbols: int, each: Live) -> None:
    """One line of the second table."""
    memory = f"{each.memory_first_mb:.0f}-{each.memory_last_mb:.0f}"
    print(
        f"{version:<10} {symbols:>7,} {each.rate:>9,} {each.core:>5.0%} {memory:>9}   "
        f"{each.state_records_per_second:>10,.0f} {each.state_bytes_per_second / 1000:>8,.0f}   "
        f"{each.candles:>8,} {each.flat:>6,} {each.delay_p50_ms:>7,.0f} {each.delay_p99_ms:>7,.0f} "
        f"{each.delay_most_ms:>7,.0f}" + (f"   {each.missing:,} had not come" if each.missing else ""),
        flush=True,
    )


def run(trees: dict[str, Path], options: argparse.Namespace) -> list[dict]:
    """Measure all versions; what is found is printed as it comes, unless JSON is asked for."""
    results = []
    for symbols in options.symbols:
        for version, tree in trees.items():
            replayed, lived = measure(tree, symbols, options)
            result = {"version": version, "symbols": symbols, **asdict(replayed)}
            results.append(result | {"live": [asdict(each) for each in lived]})
            if options.results is not None:
                with options.results.open("a") as file:
                    file.write(json.dumps(results[-1]) + "\n")
            if not options.json:
                print(COLUMNS)
                print_replay(version, symbols, replayed)
                print(LIVE_COLUMNS)
                for each in lived:
                    print_live(version, symbols, each)
    return results


def print_tables(results: list[dict]) -> None:
    """All lines again, together."""
    print(f"\n{COLUMNS}")
    for each in results:
        fields = {name: value for name, value in each.items() if name in Replay.__dataclass_fields__}
        print_replay(each["version"], each["symbols"], Replay(**fields))
    print(LIVE_COLUMNS)
    for each in results:
        for lived in each["live"]:
            print_live(each["version"], each["symbols"], Live(**lived))


def _rates(text: str) -> list[int]:
    return several(positive)(text) if text else []


def parse_arguments() -> argparse.Namespace:
    """What was asked for, `--quick` resolved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--symbols", type=several(positive), help="how many, such as 10,1500; several are measured one after another"
    )
    parser.add_argument("--trades", type=positive, help="of the dense part; the sparse one has three tenths of that")
    parser.add_argument("--rates", type=_rates, help="trades per second of the live part; empty: no live part")
    parser.add_argument("--minutes", type=int, help="how many of the last rate's live part, beyond the end of the hour")
    parser.add_argument("--changelog", type=int, default=0, help="least records of the changelogs before the recovery")
    parser.add_argument("--against", metavar="REF", help="a git reference, measured too")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="keep results there; tables and plot show them all"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the result (SVG)")
    parser.add_argument("--quick", action="store_true", help="two minutes: 10 and 1,500 symbols, fewer trades")
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    parser.add_argument("--draw-only", action="store_true", help="measure nothing: the results that were kept")
    options = parser.parse_args()
    quick = options.quick
    if options.draw_only and options.results is None:
        parser.error("--draw-only shows what was kept: name its file with --results")
    if options.draw_only and not options.results.is_file():
        parser.error(f"there is no file {options.results} with results to draw")
    options.symbols = options.symbols or (QUICK_SYMBOLS if quick else SYMBOLS)
    options.trades = options.trades or (300_000 if quick else 1_000_000)
    options.rates = options.rates if options.rates is not None else ([2_000] if quick else [2_000, 20_000])
    options.minutes = options.minutes if options.minutes is not None else (0 if quick else 1)
    return options


def main() -> int:
    """Run it, print the result and draw it."""
    options = parse_arguments()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a broker that has just started makes it complain
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.draw_only:
        results = []
    elif options.against is None:
        results = run({"now": HERE}, options)
    else:
        with checkout(options.against) as other:
            results = run({options.against[:10]: other, "now": HERE}, options)
    if options.results is not None:
        results = sorted(map(json.loads, options.results.read_text().splitlines()), key=lambda each: each["symbols"])
    if options.json:
        print(json.dumps(results))
    else:
        print_tables(results)
    if options.plot is not None:
        options.plot.write_text(draw(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
