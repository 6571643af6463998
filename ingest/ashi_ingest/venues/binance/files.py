"""Trades of Binance as files, as it publishes them for download.

Source: https://github.com/binance/binance-public-data (`SYMBOL-trades-YYYY-MM.zip`, and `…-YYYY-MM-DD.zip`, each with a
CSV of that name), and files.

    spot    id,price,qty,quoteQty,time,isBuyerMaker,isBestMatch
            51175358,17.80180000,5.69000000,101.29224200,1583709433583,True,True
    USD-M   id,price,qty,quote_qty,time,is_buyer_maker
            28457,4.00000100,12.00000000,48.00,1499865549590,true

- With a header or without: both layouts stand in both forms, by the file's age.
- Spot's times are in milliseconds up to the end of 2024 and in microseconds since; USD-M's in milliseconds.
- Of COIN-M there is `base_qty` in the place of `quote_qty`: its sizes are contracts, and Ashi has no such venue.
- `SYMBOL-aggTrades-…` sums up several trades in a row, and lacks what a candle counts.
"""

from __future__ import annotations

import re
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ashi_ingest.venues.trade_columns import BUY, SELL
from ashi_ingest.venues.trade_file import TAKER_SIDES, TradeFileFormat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAME: Final = re.compile(r"(?P<market>[^/\s-]+)-(?P<kind>trades|aggTrades)-[0-9]{4}-[0-9]{2}")
_COLUMNS: Final[Mapping[str, int]] = MappingProxyType({"id": 0, "price": 1, "size": 2, "time": 4, "side": 5})
_SPOT_WIDTH: Final = 7
_USDM_WIDTH: Final = 6
_KLINE_WIDTH: Final = 12

_IS_BUYER_MAKER: Final = {cell: side for text, side in (("true", SELL), ("false", BUY)) for cell in (
    text.encode(), text.title().encode(), text.upper().encode())} | {b"1": SELL, b"0": BUY}  # fmt: skip


def market_in(name: str) -> str | None:
    """`BTCUSDT` of `BTCUSDT-trades-2025-01.zip`."""
    match = _NAME.search(name)
    return None if match is None else match["market"]


def refuse(venue: str, first: Sequence[str], name: str) -> str | None:
    """Why a file with this first row is none of single trades of `binance` or `binance-usdm`, and what to do."""
    match = _NAME.search(name)
    names = {cell.strip().lower().replace("_", "") for cell in first}
    if (match is not None and match["kind"] == "aggTrades") or "aggtradeid" in names or _sums_up(first):
        return (
            "it has aggregated trades, each of which sums up several: candles of them would lack what each trade "
            "counts. Take the file <market>-trades-… of the same time"
        )
    if len(first) == _KLINE_WIDTH:
        return "it has klines, which are not trades: `ashi verify --klines FILE` compares candles with them"
    if "baseqty" in names:
        return "it has trades of COIN-M futures, whose sizes are numbers of contracts: there is no such venue here"
    other, width = ("binance-usdm", _USDM_WIDTH) if venue == "binance" else ("binance", _SPOT_WIDTH)
    has_other_names = (
        ("quoteqty" in names and "isbestmatch" not in names) if venue == "binance" else "isbestmatch" in names
    )
    if has_other_names or (len(first) == width and first[0].strip().isdigit()):
        return f"it has the {width} columns of {other}: name that venue"
    return None


def _sums_up(first: Sequence[str]) -> bool:
    """Whether a row without a header has the first and last id of several trades, where a trade has its time."""
    cells = [cell.strip() for cell in first]
    return len(cells) in (7, 8) and all(cell.isdigit() for cell in (cells[0], cells[3], cells[4], cells[5]))


def trade_file(venue: str) -> TradeFileFormat:
    """The files of `binance` or `binance-usdm`."""
    width = _SPOT_WIDTH if venue == "binance" else _USDM_WIDTH
    return TradeFileFormat(
        described=f"trades as Binance publishes them have {width} there (docs/trade-files.md)",
        market_in=market_in,
        names=MappingProxyType(
            {
                "id": ("id", "tradeid"),
                "price": ("price",),
                "size": ("qty", "quantity", "size"),
                "time": ("time", "timestamp", "tradetime"),
                "side": ("isbuyermaker", "side"),
                "market": ("symbol",),
            }
        ),
        without_header=MappingProxyType({width: _COLUMNS}),
        sides=MappingProxyType(_IS_BUYER_MAKER | dict(TAKER_SIDES)),
        refuse=partial(refuse, venue),
    )
