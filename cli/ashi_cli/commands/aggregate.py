"""`ashi aggregate`: the worker that makes candles, and how to let it begin anew."""

from __future__ import annotations

from typing import Annotated, Final

from ashi_cli import values
from ashi_cli.declaration import Command, Option


def aggregate() -> int:
    """`ashi aggregate`."""
    from ashi.runtime.settings import Settings
    from ashi_aggregate.worker import run_aggregate

    return run_aggregate(Settings.from_environment())


def reconfigure(
    *,
    begin_at: Annotated[
        int | None,
        Option("read trades appended from then on (ISO 8601, UTC)", flag="--from", metavar="TIME", parse=values.time),
    ] = None,
) -> int:
    """`ashi aggregate reconfigure`."""
    import asyncio

    from ashi.runtime.settings import Settings
    from ashi_aggregate.epoch import reconfigure as raise_epoch

    before, after = asyncio.run(raise_epoch(Settings.from_environment(), begin_at))
    if before is not None:
        print(f"epoch {before.epoch}: {before}")
    print(f"epoch {after.epoch}: {after}")
    print("start the aggregate workers with these settings; they build their state anew from the log")
    return 0


AGGREGATE: Final = Command(
    name="aggregate",
    text="run an aggregate worker: topic trades into topic candles",
    run=aggregate,
    actions=(
        Command(
            name="reconfigure",
            text="let the workers build their state anew, with the settings of this environment",
            run=reconfigure,
            epilog="""\
examples:
  ASHI_TIMEFRAMES=1m,5m,15m,1h ashi aggregate reconfigure
  ashi aggregate reconfigure --from 2026-11-01T00:00:00Z

Stop all aggregate workers first. They then read the log again from where it begins, or from the given time, and
send their candles anew, with greater versions. Windows that began before the first record are left out.""",
        ),
    ),
)
