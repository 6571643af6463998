"""`make chaos`: the long run, or any seed again."""

from __future__ import annotations

import argparse
import logging
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from chaos.harness import run
from chaos.market import SYMBOLS
from rig.fleet import PromiseError


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description="Ashi on a real Kafka while everything fails.")
    parser.add_argument(
        "--minutes", type=float, default=15.0, help="how long it takes; at least one round of faults (default: 15)"
    )
    parser.add_argument("--seed", type=int, help="repeat the load and the schedule of a run (default: a new one)")
    parser.add_argument(
        "--symbols", type=int, default=SYMBOLS, help=f"how many; of more than {SYMBOLS} time passes more slowly"
    )
    parser.add_argument("--workdir", type=Path, help="where its files go (default: a temporary directory)")
    options = parser.parse_args()
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    directory = options.workdir or Path(tempfile.mkdtemp(prefix=f"ashi-chaos-{seed}-"))
    directory.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=directory / "harness.log")
    try:
        result = run(directory, seed, options.minutes, say=_say, symbols=options.symbols)
    except PromiseError as error:
        sys.stderr.write(f"chaos: {error}\n")
        return 1
    _say(f"seed {seed}: passed in {result.seconds:.0f} s")
    if options.workdir is None:
        shutil.rmtree(directory)
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
