"""`ashi candles`: one series out of a store."""

from __future__ import annotations

from typing import Annotated, Final

from ashi_cli import values
from ashi_cli.declaration import Command, Option, Positional
from ashi_cli.extras import require_extras
from ashi_cli.shared_options import BEGIN, END, STORAGE, settings_with


def candles(
    *,
    symbol: Annotated[str, Positional("venue:MARKET, such as bitflyer:BTC_JPY")],
    timeframe: Annotated[str, Positional("such as 1m")],
    storage: Annotated[str | None, STORAGE] = None,
    csv: Annotated[bool, Option("all fields, as in the message, separated by commas")] = False,
    limit: Annotated[
        int | None,
        Option("only the latest N (default: 200 as a table, all as CSV)", metavar="N", parse=values.positive),
    ] = None,
    begin_at: Annotated[int | None, BEGIN] = None,
    end_at: Annotated[int | None, END] = None,
    source: Annotated[
        str,
        Option(
            "of trades, or the venue's own (`ashi history klines`), or of both those of trades first (default: trades)",
            metavar="trades|venue|any",
            parse=values.source,
        ),
    ] = "trades",
    follow: Annotated[bool, Option("go on with those that are stored or corrected from now on, until Ctrl-C")] = False,
) -> int:
    """`ashi candles`."""
    from ashi.contracts.errors import UsageError

    if follow and end_at is not None:
        raise UsageError("--follow goes on for ever: leave out --to")
    if begin_at is not None and end_at is not None and begin_at >= end_at:
        raise UsageError("--from must be before --to")
    url = settings_with(storage).storage
    require_extras("candles", store=url)
    from ashi_cli.printing.series import SeriesRequest, print_series

    wanted = SeriesRequest(symbol, timeframe, begin_at, end_at, limit)
    return print_series(url, wanted, source=source, as_csv=csv, follow=follow)


CANDLES: Final = Command(
    name="candles",
    text="print stored candles",
    run=candles,
    epilog="""\
examples:
  ashi candles binance:ETHUSDT 1m
  ashi candles binance:ETHUSDT 1h --storage sqlite:////data/candles.db --csv > hours.csv
  ashi candles binance:ETHUSDT 1m --from 2026-11-01T09:00 --to 2026-11-01T10:00
  ashi candles binance:ETHUSDT 1m --limit 5 --follow

CSV has the fields of the message (times in µs since the epoch, exact decimals) and feed_gap: `open` or
`lost` where trades may be missing. A table has a column for it when there is any. With --follow a candle
that is corrected is printed again. With --source venue or any there is a column `source`. `ashi symbols`
lists what there is.""",
)
