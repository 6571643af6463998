"""`make feeds-soak`: live workers on a real Kafka, a fault every ten seconds, judged by one who knows better."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from feeds_soak.soak import Soak
from rig.long_run import parser, perform, say


def main() -> int:
    arguments = parser("feeds-soak", "Live feeds while parts of the venues fail.")
    arguments.add_argument("--minutes", type=float, default=30.0, help="how long faults go on (default: 30)")
    arguments.add_argument("--markets", type=int, default=60, help="of all venues together (default: 60)")
    options = arguments.parse_args()

    def play(directory: Path, seed: int) -> list[str]:
        say(f"{options.minutes:g} minutes, {options.markets} markets")
        verdict = asyncio.run(Soak(directory, seed, options.minutes, options.markets, say).run())
        say(verdict.report)
        if not verdict.wrong:
            say("topic trades is the truth, the gaps are exact, and no window was called complete too early")
        return verdict.wrong

    return perform("feeds", options, play)


if __name__ == "__main__":
    sys.exit(main())
