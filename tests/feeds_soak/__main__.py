"""`make feeds-soak`: live workers on a real Kafka, a fault every ten seconds, judged by one who knows better."""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from feeds_soak.soak import Soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="feeds-soak", description="Live feeds while parts of the venues fail.")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long faults go on (default: 30)")
    parser.add_argument("--markets", type=int, default=60, help="of all venues together (default: 60)")
    parser.add_argument("--seed", type=int, help="repeat the market and the faults of a run (default: a new one)")
    options = parser.parse_args()
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    directory = Path(tempfile.mkdtemp(prefix=f"ashi-feeds-{seed}-"))
    logging.basicConfig(filename=directory / "soak.log")
    _say(f"seed {seed}, {options.minutes:g} minutes, {options.markets} markets; logs are in {directory}")
    verdict = asyncio.run(Soak(directory, seed, options.minutes, options.markets, _say).run())
    _say(verdict.report)
    if verdict.wrong:
        _say(f"seed {seed} FAILED, all logs are in {directory}:\n" + "\n".join(verdict.wrong))
        return 1
    _say(f"seed {seed}: topic trades is the truth, the gaps are exact, and no window was called complete too early")
    shutil.rmtree(directory)
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
