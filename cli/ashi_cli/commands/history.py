"""`ashi history`: what was before the live candles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

from ashi_cli import values
from ashi_cli.declaration import Command, Option, Positional
from ashi_cli.extras import require_extras
from ashi_cli.shared_options import MARKET, PAST_BEGIN, PAST_END, STORAGE, TOPIC, TRADES_IN, settings_with, tell
from ashi_ingest.venues.registry import KLINE_VENUES, VENUES


def load(
    *,
    files: Annotated[Sequence[Path], Positional("recordings, or files of trades, in any order", metavar="FILE")],
    symbol: Annotated[str, Option("whose trades: venue:MARKET", metavar="SYMBOL")],
    adjacent_us: Annotated[
        int,
        Option(
            "treat files no further apart than this as adjacent, where trade ids cannot tell (default: 0s)",
            flag="--adjacent",
            metavar="DURATION",
            parse=values.duration,
        ),
    ] = 0,
    jobs: Annotated[
        int | None, Option("files to read in parallel (default: one per processor)", parse=values.positive)
    ] = None,
    dry_run: Annotated[bool, Option("only say what would be published")] = False,
) -> int:
    """`ashi history load`."""
    from ashi.runtime.settings import Settings

    require_extras("history load")
    from ashi_history.load import LoadOptions, run_load

    chosen = LoadOptions(files, symbol, adjacent_us=adjacent_us, jobs=jobs, dry_run=dry_run)
    return run_load(Settings.from_environment(), chosen)


def fetch(
    *,
    venue: Annotated[str, Positional(f"one of {', '.join(VENUES)}", metavar="VENUE")],
    market: Annotated[str, MARKET],
    begin: Annotated[int, PAST_BEGIN],
    end: Annotated[int | None, PAST_END] = None,
    directory: Annotated[
        Path, Option("write the recordings to this directory (default: here)", flag="--into", metavar="DIR")
    ] = Path(),
) -> int:
    """`ashi history fetch`."""
    from ashi.runtime.settings import Settings

    require_extras("history fetch")
    from ashi_history.fetch import FetchOptions, run_fetch

    return run_fetch(Settings.from_environment(), FetchOptions(venue, market, begin, end, directory), tell)


def export(
    *,
    symbols: Annotated[
        Sequence[str],
        Option("whose trades: venue:MARKET; repeatable (default: of all)", flag="--symbol", metavar="SYMBOL"),
    ] = (),
    begin: Annotated[
        int | None,
        Option("from when on, in UTC; by default all there are", flag="--from", metavar="TIME", parse=values.time),
    ] = None,
    end: Annotated[
        int | None,
        Option("until when, exclusive; by default a minute ago", flag="--to", metavar="TIME", parse=values.time),
    ] = None,
    trades: Annotated[str, TRADES_IN] = TOPIC,
    directory: Annotated[
        Path, Option("write the recordings to this directory (default: here)", flag="--into", metavar="DIR")
    ] = Path(),
) -> int:
    """`ashi history export`."""
    from ashi.runtime.settings import Settings

    lake = None if trades == TOPIC else trades
    require_extras("history export", store=lake)
    from ashi_history.export import ExportOptions, run_export

    return run_export(Settings.from_environment(), ExportOptions(directory, symbols, begin, end, lake), tell)


def import_exports(
    *,
    directory: Annotated[Path, Positional("what `ashi history export` has written to", metavar="DIR")],
    symbols: Annotated[
        Sequence[str],
        Option("only this one, venue:MARKET; repeatable (default: all)", flag="--symbol", metavar="SYMBOL"),
    ] = (),
) -> int:
    """`ashi history import`."""
    from ashi.runtime.settings import Settings

    require_extras("history import")
    from ashi_history.importing import ImportOptions, run_import

    return run_import(Settings.from_environment(), ImportOptions(directory, symbols), tell)


def klines(
    *,
    venue: Annotated[str, Positional(f"one of {', '.join(KLINE_VENUES)}", metavar="VENUE")],
    market: Annotated[str, MARKET],
    timeframe: Annotated[
        Sequence[str], Option("such as 1m; repeatable (default: 1m)", metavar="TIMEFRAME", parse=values.timeframe)
    ] = (),
    begin: Annotated[int, PAST_BEGIN],
    end: Annotated[int | None, PAST_END] = None,
    storage: Annotated[str | None, STORAGE] = None,
) -> int:
    """`ashi history klines`."""
    from ashi.contracts.timeframe import Timeframe

    settings = settings_with(storage)
    require_extras("history klines", store=settings.storage)
    from ashi_history.klines import KlineOptions, run_klines

    timeframes = [Timeframe.parse(name) for name in dict.fromkeys(timeframe or ["1m"])]
    return run_klines(settings, KlineOptions(venue, market, timeframes, begin, end), tell)


HISTORY: Final = Command(
    name="history",
    text="candles from before the live ones",
    actions=(
        Command(
            name="fetch",
            text="fetch old trades of a market over REST, and write them to recordings",
            run=fetch,
            epilog="""\
examples:
  ashi history fetch binance ETHUSDT --from 2025-01-01 --to 2025-02-01 --into eth
  ashi history load eth/*.txt.gz --symbol binance:ETHUSDT

It may be killed and given again: it goes on where it was. Exit status 1: not all of it could be got; what is missing
is told (docs/history.md). Kafka is not needed.""",
        ),
        Command(
            name="export",
            text="write trades out of topic trades, or a lake, to recordings",
            run=export,
            epilog="""\
examples:
  ashi history export --into moved
  ashi history export --trades lake:////data/lake --symbol bitflyer:BTC_JPY --from 2026-01-01 --into moved

Each trade once, with all its fields, and what is missing of them. It may be killed and given again: it goes on where it
was. `ashi history import` brings them into another Kafka (docs/history.md).""",
        ),
        Command(
            name="import",
            text="publish the trades that `ashi history export` has written to topic trades of another Kafka",
            run=import_exports,
            epilog="""\
examples:
  ashi history import moved
  ashi history import moved --symbol bitflyer:BTC_JPY

Before `ashi ingest` begins there: nothing is published that would be late. It may be killed and given again: what is
there is not published once more. What the source lacked is told as gaps (docs/history.md).""",
        ),
        Command(
            name="klines",
            text="store the venue's own candles, marked as such, where there are no trades to make them of",
            run=klines,
            epilog="""\
examples:
  ashi history klines binance ETHUSDT --timeframe 1m --timeframe 1h --from 2025-01-01 --to 2025-02-01
  ashi history klines gmo BTC --from 2026-01-01 --storage sqlite:////data/candles.db

They go into the store alone, beside the candles made of trades and never in place of one. The chart marks them;
`ashi candles --source any` and `ashi strategy backtest --venue-candles` read them too. It may be killed and given
again: what is stored is not asked for once more (docs/history.md). Kafka is not needed.""",
        ),
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
