"""`make chaos`: the long run, or any seed again."""

from __future__ import annotations

import sys
from pathlib import Path

from chaos.harness import run
from chaos.market import SYMBOLS
from rig.long_run import parser, perform, say


def main() -> int:
    arguments = parser("chaos", "Ashi on a real Kafka while everything fails.")
    arguments.add_argument(
        "--minutes", type=float, default=15.0, help="how long it takes; at least one round of faults (default: 15)"
    )
    arguments.add_argument(
        "--symbols", type=int, default=SYMBOLS, help=f"how many; of more than {SYMBOLS} time passes more slowly"
    )
    options = arguments.parse_args()

    def play(directory: Path, seed: int) -> list[str]:
        result = run(directory, seed, options.minutes, say=say, symbols=options.symbols)
        say(f"{result.seconds:.0f} s")
        return []

    return perform("chaos", options, play)


if __name__ == "__main__":
    sys.exit(main())
