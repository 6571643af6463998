"""`ashi ingest`: trades of a venue, live or from recordings.

No postponed annotations here: those of a live feed say which venue's it is.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

from ashi_cli import values
from ashi_cli.declaration import Command, Option, Positional
from ashi_cli.shared_options import MARKETS, PAST_BEGIN, PAST_END, tell
from ashi_ingest.shard import Shard
from ashi_ingest.venues.registry import VENUES


def replay(
    *,
    venue: Annotated[str, Option(f"one of {', '.join(VENUES)}")],
    recordings: Annotated[
        Sequence[Path],
        Positional("recordings, or files of trades (docs/trade-files.md), in order", metavar="PATH"),
    ],
    market: Annotated[
        str | None,
        Option("the market of trade files whose names do not give it, by the venue's own name", metavar="MARKET"),
    ] = None,
    columns: Annotated[
        Mapping[str, str],
        Option(
            "of files of trades whose columns are called otherwise: price=px,size=qty,…",
            metavar="FIELD=COLUMN,…",
            parse=values.columns,
        ),
    ] = MappingProxyType({}),
    summary: Annotated[Path | None, Option("write what was done to FILE, as JSON", metavar="FILE")] = None,
) -> int:
    """`ashi ingest replay`."""
    from ashi.runtime.settings import Settings
    from ashi_ingest.recording.replay import run_replay
    from ashi_ingest.recording.trade_files import FileOptions

    options = FileOptions(market, columns)
    return run_replay(Settings.from_environment(), venue, recordings, summary=summary, options=options)


def backfill(
    *,
    venue: Annotated[str, Positional(f"one of {', '.join(VENUES)}", metavar="VENUE")],
    markets: Annotated[Sequence[str], MARKETS],
    begin: Annotated[int, PAST_BEGIN],
    end: Annotated[int | None, PAST_END] = None,
) -> int:
    """`ashi ingest backfill`."""
    from ashi.runtime.settings import Settings
    from ashi_ingest.history.backfill import BackfillOptions, run_backfill

    return run_backfill(Settings.from_environment(), BackfillOptions(venue, markets, begin, end), tell)


def make_live(venue: str, title: str, market: str) -> Command:
    """`ashi ingest bitflyer` and its like. `title`: the venue's name in prose; `market`: one of its markets."""

    def live(
        *,
        markets: Annotated[
            Sequence[str], Positional(f"by the venue's own names, such as {market}", metavar="MARKET")
        ] = (),
        all_markets: Annotated[bool, Option("all markets of the venue", flag="--all")] = False,
        shard: Annotated[
            Shard | None,
            Option(
                "only the markets that fall to worker N of M, counted from 0; every worker gets the same markets",
                metavar="N/M",
                parse=values.shard,
            ),
        ] = None,
        record: Annotated[
            Path | None,
            Option("write every frame and what REST brings to files in DIR, for `ashi ingest replay`", metavar="DIR"),
        ] = None,
        since: Annotated[
            int | None,
            Option(
                "symbols of which nothing was published begin at TIME, UTC: what was traded since is fetched first",
                metavar="TIME",
                parse=values.time,
            ),
        ] = None,
        redundant: Annotated[
            bool, Option("other workers read the same markets on purpose; all of them get this", flag="--redundant")
        ] = False,
    ) -> int:
        from ashi.contracts.errors import UsageError
        from ashi.runtime.settings import Settings
        from ashi_ingest.worker import LiveOptions, run_live

        if bool(markets) == all_markets:
            raise UsageError("name the markets to read, or --all for all of the venue")
        return run_live(Settings.from_environment(), LiveOptions(venue, markets, shard, record, redundant, since))

    return Command(
        name=venue,
        text=f"trades of {title} as they happen, until told to stop",
        run=live,
        epilog=f"""\
examples:
  ashi ingest {venue} {market}
  ashi ingest {venue} --all --shard 2/5 --record recordings/
  ashi ingest {venue} {market} --since 2026-11-01

What was missed while it was not connected, or did not run, is fetched first (docs/venues.md).""",
    )


INGEST: Final = Command(
    name="ingest",
    text="trades of a venue into topic trades",
    actions=(
        Command(
            name="replay",
            text="publish what recordings and files of trades of a venue hold",
            run=replay,
            epilog="""\
examples:
  ashi ingest replay --venue binance monday.txt.gz tuesday.txt.gz
  ashi ingest replay --venue binance BTCUSDT-trades-2025-01.zip
  ashi ingest replay --venue gmo 20250701_BTC_JPY.csv.gz 20250702_BTC_JPY.csv.gz
  ashi ingest replay --venue bitflyer --market BTC_JPY --columns id=exec_id,time=at mine.parquet

Exit status 3: a recording could be read only in part; what was read is published.""",
        ),
        Command(
            name="backfill",
            text="fetch a stretch of time from a venue, and publish what topic trades lacks",
            run=backfill,
            epilog="""\
examples:
  ashi ingest backfill bitflyer BTC_JPY FX_BTC_JPY --from 2026-11-01 --to 2026-11-03T12:00

Times in ISO 8601. It may be interrupted and given again. Exit status 0: all of it is there; 1: some could not be got
(docs/venues.md: how far back each venue goes). Binance USD-M needs ASHI_BINANCE_API_KEY.""",
        ),
        *(make_live(name, venue.title, venue.example_market) for name, venue in VENUES.items()),
    ),
)
