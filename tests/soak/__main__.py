"""`make soak`: an hour of everything, a fault every five minutes; ends with two tables in Markdown."""

from __future__ import annotations

import argparse
import logging
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from rig.fleet import PromiseError
from soak.faults import FAULTS
from soak.harness import run
from soak.report import tables


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description="Everything for an hour, a fault every five minutes.")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="how long; the rules' times are divided accordingly (default: 60)"
    )
    parser.add_argument("--rate", type=int, default=2_000, help="trades a second (default: 2,000)")
    parser.add_argument("--seed", type=int, help="repeat the market and the order of the faults (default: a new one)")
    parser.add_argument("--fault", action="append", help="only those whose name has this in it; repeatable")
    parser.add_argument("--workdir", type=Path, help="where its files go (default: a temporary directory)")
    options = parser.parse_args()
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    chosen = [each for each in FAULTS if not options.fault or any(text in each.name for text in options.fault)]
    if not chosen:
        parser.error(f"no fault is called so; there are: {'; '.join(each.name for each in FAULTS)}")
    directory = options.workdir or Path(tempfile.mkdtemp(prefix=f"ashi-soak-{seed}-"))
    directory.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=directory / "harness.log")
    _say(f"seed {seed}; all logs are in {directory}")
    try:
        result = run(directory, seed, minutes=options.minutes, rate=options.rate, chosen=chosen, say=_say)
    except PromiseError as error:
        sys.stderr.write(f"soak: {error}\n")
        return 1
    _say(tables(result))
    if result.wrong:
        _say(f"seed {seed} FAILED, all logs are in {directory}:\n" + "\n".join(result.wrong))
        return 1
    _say(f"seed {seed}: every row of every store is the oracle's, nothing grows, every alert had its cause")
    if options.workdir is None:
        shutil.rmtree(directory)
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
