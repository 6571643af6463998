"""`make soak`: an hour of everything, a fault every five minutes; ends with two tables in Markdown."""

from __future__ import annotations

import sys
from pathlib import Path

from rig.long_run import parser, perform, say
from soak.faults import FAULTS
from soak.harness import run
from soak.report import tables


def main() -> int:
    arguments = parser("soak", "Everything for an hour, a fault every five minutes.")
    arguments.add_argument(
        "--minutes", type=float, default=60.0, help="how long; the rules' times are divided accordingly (default: 60)"
    )
    arguments.add_argument("--rate", type=int, default=2_000, help="trades a second (default: 2,000)")
    arguments.add_argument("--fault", action="append", help="only those whose name has this in it; repeatable")
    arguments.add_argument("--times", type=int, default=1, help="how often each of them comes (default: 1)")
    options = arguments.parse_args()
    chosen = [each for each in FAULTS if not options.fault or any(text in each.name for text in options.fault)]
    if not chosen:
        arguments.error(f"no fault is called so; there are: {'; '.join(each.name for each in FAULTS)}")

    def play(directory: Path, seed: int) -> list[str]:
        result = run(
            directory, seed, minutes=options.minutes, rate=options.rate, chosen=chosen * options.times, say=say
        )
        say(tables(result))
        wrong = [*result.stray, *result.wrong]
        if not wrong:
            say("every row of every store is the oracle's, nothing grows, every alert had its cause")
        return wrong

    return perform("soak", options, play)


if __name__ == "__main__":
    sys.exit(main())
