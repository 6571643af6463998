"""Executions of bitFlyer as files, as its users keep them: bitFlyer publishes none.

What programs write that save the answers of `/v1/getexecutions` or the websocket's messages, with the fields of these
(https://lightning.bitflyer.com/docs#execution-history) as columns:

    id,side,price,size,exec_date,buy_child_order_acceptance_id,sell_child_order_acceptance_id
    2284079807,BUY,5860832.0,0.01,2021-12-12T23:05:29.9692063Z,JRF…,JRF…

- With a header in any order, with more columns or fewer, `product_code` perhaps among them; without one in this order.
- The side is empty in an auction.
- Programs write dates with `T` or a space, `Z` or nothing: they are UTC in either case, as bitFlyer's are.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ashi_ingest.venues.trade_columns import NO_SIDE
from ashi_ingest.venues.trade_file import TAKER_SIDES, TradeFileFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME: Final = re.compile(r"(?<![A-Za-z0-9])(?:FX_)?[A-Z]{2,8}_(?:JPY|BTC|USD|EUR)(?![A-Za-z0-9])")
_COLUMNS: Final[Mapping[str, int]] = MappingProxyType({"id": 0, "side": 1, "price": 2, "size": 3, "time": 4})


def market_in(name: str) -> str | None:
    """`FX_BTC_JPY` of `bitflyer.execution.20170801.FX_BTC_JPY.csv.gz`."""
    match = _NAME.search(name)
    return None if match is None else match[0]


TRADE_FILE: Final = TradeFileFormat(
    described="executions of bitFlyer have 5 or 7 there, or a header (docs/trade-files.md)",
    market_in=market_in,
    names=MappingProxyType(
        {
            "id": ("id",),
            "price": ("price",),
            "size": ("size",),
            "side": ("side",),
            "time": ("execdate", "timestamp", "time"),
            "market": ("productcode",),
        }
    ),
    without_header=MappingProxyType({5: _COLUMNS, 7: _COLUMNS}),
    sides=MappingProxyType(dict(TAKER_SIDES) | {b"": NO_SIDE}),
)
