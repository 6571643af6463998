"""`ashi candles`: one series out of a store."""

from __future__ import annotations

from typing import Annotated, Final

from ashi_cli import values
from ashi_cli.declaration import Command, Option, Positional
from ashi_cli.extras import require_extras
from ashi_cli.shared_options import STORAGE, settings_with


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
) -> int:
    """`ashi candles`."""
    url = settings_with(storage).storage
    require_extras("candles", store=url)
    from ashi_cli.printing.series import print_series

    return print_series(url, symbol, timeframe, as_csv=csv, limit=limit)


CANDLES: Final = Command(
    name="candles",
    text="print stored candles",
    run=candles,
    epilog="""\
examples:
  ashi candles binance:ETHUSDT 1m
  ashi candles binance:ETHUSDT 1h --storage sqlite:////data/candles.db --csv > hours.csv

CSV has the fields of the message (times in µs since the epoch, exact decimals) and feed_gap: `open` or
`lost` where trades may be missing. A table has a column for it when there is any.""",
)
