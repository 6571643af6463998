"""`ashi history`: what was before the live candles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

from ashi_cli import values
from ashi_cli.declaration import Command, Option, Positional
from ashi_cli.extras import require_extras


def load(
    *,
    files: Annotated[Sequence[Path], Positional("recordings, or files of trades, in any order", metavar="FILE")],
    symbol: Annotated[str, Option("whose trades: venue:MARKET", metavar="SYMBOL")],
    adjacent_us: Annotated[
        int,
        Option(
            "where ids do not tell: between files no further apart than this nothing is missing (default: 0s)",
            flag="--adjacent",
            metavar="DURATION",
            parse=values.duration,
        ),
    ] = 0,
    jobs: Annotated[
        int | None, Option("so many files are read at once (default: the number of processors)", parse=values.positive)
    ] = None,
    dry_run: Annotated[bool, Option("only say what would be published")] = False,
) -> int:
    """`ashi history load`."""
    from ashi.runtime.settings import Settings

    require_extras("history load")
    from ashi_history.load import LoadOptions, run_load

    chosen = LoadOptions(files, symbol, adjacent_us=adjacent_us, jobs=jobs, dry_run=dry_run)
    return run_load(Settings.from_environment(), chosen)


HISTORY: Final = Command(
    name="history",
    text="candles from before the live ones",
    actions=(
        Command(
            name="load",
            text="make candles of trades that are older than all live candles, and publish them",
            run=load,
            epilog="""\
examples:
  ashi history load ETHUSDT-trades-2025-*.zip --symbol binance:ETHUSDT
  ashi history load old/bitflyer-*.txt.gz --symbol bitflyer:BTC_JPY --adjacent 5s --dry-run

The workers may run. It may be killed and given again: what is there already is not published once more. Times that no
file has are told as gaps (docs/history.md; what files: docs/recordings.md, docs/trade-files.md).""",
        ),
    ),
)
