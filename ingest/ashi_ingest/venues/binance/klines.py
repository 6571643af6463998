"""Klines of Binance, over REST and as files for download.

Sources: https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints#klinecandlestick-data
(spot: 1,000 rows, weight 2), the same of USD-M under `/fapi/v1/klines` (weight 5 for up to 1,000 rows), and
https://github.com/binance/binance-public-data (the files: the same twelve columns, in µs since 2025 for spot).

    [1499040000000,"0.01634790","0.80000000","0.01575800","0.01577100","148976.11427815",1499644799999,"2434.19055334",
     308,"1756.87402397","28.46694368","0"]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from ashi.contracts.decimals import parse_decimal
from ashi.contracts.errors import ContractError
from ashi_ingest.venues.answers import decode_answer
from ashi_ingest.venues.base import Kline, KlinePage, Request
from ashi_ingest.venues.binance.messages import parse_time
from ashi_ingest.venues.parsing import parse_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from decimal import Decimal

    from ashi.contracts.timeframe import Timeframe

ROWS: Final = 1_000
"""Rows of an answer."""
COLUMNS: Final = 12

SPOT_INTERVALS: Final = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d")
"""They are named as our timeframes are."""

_rows = msgspec.json.Decoder(list[list[str | int]])


def read_row(row: Sequence[str | int]) -> Kline:
    """One row, over REST or of a file; milliseconds or microseconds. Raises ContractError."""
    if len(row) != COLUMNS:
        raise ContractError(f"a kline of Binance has {COLUMNS} columns, and this row has {len(row)}")
    texts = [str(cell).strip() for cell in row]
    opened = parse_whole("open_time", texts[0])
    open_time = parse_time("open_time", opened)
    # The last millisecond or microsecond that belongs to it.
    length_us = parse_time("close_time", parse_whole("close_time", texts[6]) + 1) - open_time
    if length_us <= 0:
        raise ContractError(f"close_time {texts[6]} is not after open_time {texts[0]}")
    return Kline(
        open_time=open_time,
        length_us=length_us,
        open=parse_decimal("open", texts[1]),
        high=parse_decimal("high", texts[2]),
        low=parse_decimal("low", texts[3]),
        close=parse_decimal("close", texts[4]),
        volume=parse_decimal("volume", texts[5]),
        quote_volume=parse_decimal("quote_volume", texts[7]),
        trade_count=parse_whole("count", texts[8]),
        taker_buy_volume=parse_decimal("taker_buy_volume", texts[9]),
        taker_buy_quote_volume=parse_decimal("taker_buy_quote_volume", texts[10]),
    )


@dataclass(frozen=True, slots=True)
class BinanceKlines:
    """The klines of spot or of USD-M: see `ashi_ingest.venues.base.Klines`.

    Attributes:
        path: of the endpoint.
        weight: of a request for up to 1,000 rows.
        intervals: the lengths there are.
        uncounted: see `Klines.uncounted`.

    """

    path: str
    weight: int
    intervals: tuple[str, ...]
    uncounted: str | None = None

    def covers(self, timeframe: Timeframe) -> bool:
        """Whether there are klines of that length."""
        return str(timeframe) in self.intervals

    def pages(self, market: str, timeframe: Timeframe, start: int, end: int) -> Iterator[KlinePage]:
        """The requests for the klines that begin in [start, end), µs, a thousand each."""
        span_us = ROWS * timeframe.length_us
        for begin in range(timeframe.open_time(start), end, span_us):
            stop = min(begin + span_us, end)
            parameters = {
                "symbol": market,
                "interval": str(timeframe),
                "startTime": str(begin // 1000),
                "endTime": str((stop - 1) // 1000),
                "limit": str(ROWS),
            }
            yield KlinePage(Request(self.path, parameters, self.weight), begin, stop)

    def read(self, timeframe: Timeframe, body: bytes) -> list[Kline]:  # noqa: ARG002  (the rows tell their length)
        """The klines of an answer, oldest first. Raises ContractError when it cannot be read."""
        rows = decode_answer(_rows, body, self.path)
        return sorted(map(read_row, rows), key=lambda kline: kline.open_time)

    def explain(self, field: str, candle: Decimal | int, kline: Decimal | int) -> str | None:  # noqa: ARG002
        """Nothing: its klines count what its trades say."""
        return None


SPOT_KLINES: Final = BinanceKlines("/api/v3/klines", 2, SPOT_INTERVALS)
USDM_KLINES: Final = BinanceKlines(
    "/fapi/v1/klines",
    5,
    SPOT_INTERVALS[1:],
    "trades that are not MARKET (insurance fund, auto-deleveraging) count in no kline; older recordings do not tell "
    "them apart",
)
