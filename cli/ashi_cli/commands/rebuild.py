"""`ashi rebuild`: candles made again of all their trades."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from ashi_cli.declaration import Command, Option
from ashi_cli.extras import require_extras
from ashi_cli.shared_options import BEGIN, END, SYMBOLS, TOPIC, TRADES_IN


def rebuild(
    *,
    begin_at: Annotated[int, BEGIN],
    end_at: Annotated[int, END],
    symbols: Annotated[Sequence[str], SYMBOLS] = (),
    trades: Annotated[str, TRADES_IN] = TOPIC,
    dry_run: Annotated[bool, Option("print what would be published")] = False,
) -> int:
    """`ashi rebuild`."""
    import asyncio

    from ashi.contracts.errors import UsageError
    from ashi.runtime.settings import Settings

    if begin_at >= end_at:
        raise UsageError("--from must be before --to")
    if trades != TOPIC:
        require_extras("rebuild", store=trades)
    from ashi_audit.rebuild import RebuildOptions, run_rebuild

    chosen = RebuildOptions(
        start=begin_at, end=end_at, symbols=symbols, dry_run=dry_run, lake=None if trades == TOPIC else trades
    )
    return asyncio.run(run_rebuild(Settings.from_environment(), chosen))


REBUILD: Final = Command(
    name="rebuild",
    text="make candles again of all their trades, also of late ones, and publish those that differ",
    run=rebuild,
    epilog="""\
examples:
  ashi rebuild --from 2026-11-01 --to 2026-11-02 --dry-run
  ashi rebuild --from 2026-11-01 --to 2026-11-02 --symbol bitflyer:BTC_JPY

Only windows that no live correction can change any more. The workers may run (docs/verify.md).""",
)
