"""`make rehearsal`: everything on hosts of its own, what goes wrong between them one after the other, and a table."""

from __future__ import annotations

import sys
from pathlib import Path

from multihost.faults import FAULTS
from multihost.harness import CALM_S, run
from multihost.hosts import require
from multihost.isolation import isolated
from multihost.report import table
from rig.long_run import parser, perform, say
from servers import earlier_version


def main() -> int:
    names = ", ".join(each.name for each in FAULTS)
    arguments = parser("rehearsal", "Ashi on several hosts, and what goes wrong between them.")
    arguments.add_argument("faults", nargs="*", metavar="FAULT", help=f"of {names} (default: all)")
    arguments.add_argument("--rate", type=int, default=2_000, help="trades a second (default: 2,000)")
    arguments.add_argument("--minutes", type=float, default=40.0, help="no fault begins later (default: 40)")
    arguments.add_argument(
        "--calm", type=float, default=CALM_S, help=f"how late no candle may be between faults (default: {CALM_S:g} s)"
    )
    arguments.add_argument("--static", action="store_true", help="aggregate workers have instance ids")
    options = arguments.parse_args()
    if unknown := set(options.faults) - {each.name for each in FAULTS}:
        arguments.error(f"no fault is called {', '.join(unknown)}; there are: {names}")
    chosen = [each for each in FAULTS if not options.faults or each.name in options.faults]

    def play(directory: Path, seed: int) -> list[str]:
        versions = {"now": earlier_version.environment(earlier_version.ROOT)}
        left = list(chosen)
        if any(each.name == "versions-rolled" for each in chosen):
            if missing := earlier_version.unpack(directory / "earlier"):
                say(f"no roll between versions: {missing}")
                left = [each for each in chosen if each.name != "versions-rolled"]
            versions["earlier"] = earlier_version.environment(directory / "earlier")
        result = run(
            directory,
            seed,
            rate=options.rate,
            chosen=left,
            minutes=options.minutes,
            calm_s=options.calm,
            static=options.static,
            versions=versions,
            say=say,
        )
        say(table(result))
        return [*result.missed, *result.wrong]

    def rehearse() -> int:
        require()
        return perform("rehearsal", options, play)

    return isolated(rehearse)


if __name__ == "__main__":
    sys.exit(main())
