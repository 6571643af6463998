"""`ashi aggregate`: the worker that makes candles, and how to let it begin anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from ashi_cli import values
from ashi_cli.declaration import Command, Option
from ashi_cli.extras import require_extras


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
    beyond: Annotated[
        Sequence[str],
        Option(
            "a store whose candles the new ones are to replace, as it was filled from another Kafka; repeatable",
            metavar="URL",
            parse=values.url,
        ),
    ] = (),
) -> int:
    """`ashi aggregate reconfigure`."""
    import asyncio

    from ashi.runtime.settings import Settings
    from ashi_aggregate.reconfigure import reconfigure as raise_epoch

    settings = Settings.from_environment()
    for url in beyond:
        require_extras("aggregate reconfigure", store=url)
    least = asyncio.run(_first_beyond(beyond))
    before, after = asyncio.run(raise_epoch(settings, begin_at, least=least))
    if before is not None:
        print(f"epoch {before.epoch}: {before}")
    print(f"epoch {after.epoch}: {after}")
    print("start the aggregate workers with these settings; they build their state anew from the log")
    return 0


async def _first_beyond(stores: Sequence[str]) -> int:
    """The first epoch beyond those of all candles in these stores."""
    if not stores:
        return 0
    from ashi.contracts.candle import epoch_of
    from ashi_sinks.registry import open_reader

    least = 0
    for url in stores:
        async with open_reader(url) as reader:
            version = await reader.greatest_version()
        if version is not None:
            least = max(least, epoch_of(version) + 1)
    return least


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
  ashi aggregate reconfigure --beyond sqlite:////data/candles.db      on another Kafka than the store was filled from

Stop all aggregate workers first. They then read the log again from where it begins, or from the given time, and
send their candles anew, with greater versions. Windows that began before the first record are left out.""",
        ),
    ),
)
