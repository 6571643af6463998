"""Klines: the candles that venues publish themselves, over REST and, Binance's, as files for download. Pure.

Sources: https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints#klinecandlestick-data
(spot: 1,000 rows, weight 2), the same of USD-M under `/fapi/v1/klines` (weight 5 for up to 1,000 rows),
https://github.com/binance/binance-public-data (the files: the same twelve columns, in µs since 2025 for spot), and
https://api.coin.z.com/docs/en/#klines .

    [1499040000000,"0.01634790","0.80000000","0.01575800","0.01577100","148976.11427815",1499644799999,"2434.19055334",
     308,"1756.87402397","28.46694368","0"]
    {"status":0,"data":[{"openTime":"1618588800000","open":"6418255","high":"6418255","low":"6399280","close":"6400000",
     "volume":"0.2"}],"responsetime":"2021-04-17T00:00:00.000Z"}

bitFlyer publishes none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from ashi.contracts.decimals import parse_decimal
from ashi.contracts.errors import ContractError
from ashi.contracts.timeframe import Timeframe
from ashi_ingest.venues.answers import decode_answer
from ashi_ingest.venues.base import Request
from ashi_ingest.venues.binance.messages import parse_time
from ashi_ingest.venues.gmo.backfill import Message, check_status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROWS: Final = 1_000
"""Rows of an answer of Binance."""
COLUMNS: Final = 12

_SPOT_INTERVALS: Final = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d")
_INTERVALS: Final[dict[str, dict[str, str]]] = {
    "binance": {name: name for name in _SPOT_INTERVALS},
    "binance-usdm": {name: name for name in _SPOT_INTERVALS[1:]},
    # Its longer ones begin at 06:00 in Japan, so they are other windows than ours.
    "gmo": {"1m": "1min", "5m": "5min", "10m": "10min", "15m": "15min", "30m": "30min", "1h": "1hour"},
}
_PATHS: Final = {"binance": "/api/v3/klines", "binance-usdm": "/fapi/v1/klines", "gmo": "/public/v1/klines"}
_WEIGHTS: Final = {"binance": 2, "binance-usdm": 5}
KLINE_VENUES: Final = tuple(_PATHS)

_DAY_US: Final = 86_400_000_000
_TURN_US: Final = 10_800_000_000
"""GMO's day of a date begins at 06:00 in Japan, which is 21:00 UTC of the day before: three hours before ours."""


class Kline(NamedTuple):
    """A venue's own candle.

    Attributes:
        open_time: µs; `length_us` how long it lasts.
        volume: base currency; `quote_volume`, `taker_buy_quote_volume` in quote currency. None where the venue does not
            tell, as for `trade_count`.

    """

    open_time: int
    length_us: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal | None = None
    trade_count: int | None = None
    taker_buy_volume: Decimal | None = None
    taker_buy_quote_volume: Decimal | None = None


class Page(NamedTuple):
    """One request, and the time (µs, end exclusive) whose klines it gives."""

    request: Request
    start: int
    end: int


def read_binance_row(row: Sequence[str | int]) -> Kline:
    """One row of Binance, over REST or of a file; milliseconds or microseconds. Raises ContractError."""
    if len(row) != COLUMNS:
        raise ContractError(f"a kline of Binance has {COLUMNS} columns, and this row has {len(row)}")
    texts = [str(cell).strip() for cell in row]
    opened = _whole("open_time", texts[0])
    open_time = parse_time("open_time", opened)
    # The last millisecond or microsecond that belongs to it.
    length_us = parse_time("close_time", _whole("close_time", texts[6]) + 1) - open_time
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
        trade_count=_whole("count", texts[8]),
        taker_buy_volume=parse_decimal("taker_buy_volume", texts[9]),
        taker_buy_quote_volume=parse_decimal("taker_buy_quote_volume", texts[10]),
    )


def _whole(field: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise ContractError(f"{field} {text[:40]!r} is not a whole number")
    return int(text)


def has_klines(venue: str, timeframe: Timeframe) -> bool:
    """Whether the venue publishes klines of that length that are the same windows as ours."""
    return str(timeframe) in _INTERVALS[venue]


def kline_pages(venue: str, market: str, timeframe: Timeframe, start: int, end: int) -> Iterator[Page]:
    """The requests for the klines that begin in [start, end), µs, oldest first."""
    if venue == "gmo":
        yield from _gmo_pages(market, timeframe, start, end)
        return
    span_us = ROWS * timeframe.length_us
    for begin in range(timeframe.open_time(start), end, span_us):
        stop = min(begin + span_us, end)
        parameters = {
            "symbol": market,
            "interval": _INTERVALS[venue][str(timeframe)],
            "startTime": str(begin // 1000),
            "endTime": str((stop - 1) // 1000),
            "limit": str(ROWS),
        }
        yield Page(Request(_PATHS[venue], parameters, _WEIGHTS[venue]), begin, stop)


def _gmo_pages(market: str, timeframe: Timeframe, start: int, end: int) -> Iterator[Page]:
    first = (start + _TURN_US) // _DAY_US * _DAY_US - _TURN_US
    for begin in range(first, end, _DAY_US):
        date = datetime.fromtimestamp((begin + _TURN_US) // 1_000_000, UTC).strftime("%Y%m%d")
        parameters = {"symbol": market, "interval": _INTERVALS["gmo"][str(timeframe)], "date": date}
        yield Page(Request(_PATHS["gmo"], parameters), max(begin, start), min(begin + _DAY_US, end))


class _GmoRow(msgspec.Struct, rename="camel"):
    open_time: str
    open: str
    high: str
    low: str
    close: str
    volume: str


class _GmoAnswer(msgspec.Struct):
    status: int
    data: list[_GmoRow] = []
    messages: list[Message] = []


_binance_rows = msgspec.json.Decoder(list[list[str | int]])
_gmo_answer = msgspec.json.Decoder(_GmoAnswer)


def read_klines(venue: str, timeframe: Timeframe, body: bytes) -> list[Kline]:
    """The klines of an answer, oldest first. Raises ContractError when it cannot be read."""
    if venue != "gmo":
        rows = decode_answer(_binance_rows, body, _PATHS[venue])
        return sorted(map(read_binance_row, rows), key=lambda kline: kline.open_time)
    answer = decode_answer(_gmo_answer, body, _PATHS[venue])
    check_status(answer.status, answer.messages, _PATHS[venue])
    return sorted((_gmo_kline(row, timeframe) for row in answer.data), key=lambda kline: kline.open_time)


def _gmo_kline(row: _GmoRow, timeframe: Timeframe) -> Kline:
    return Kline(
        open_time=parse_time("openTime", _whole("openTime", row.open_time)),
        length_us=timeframe.length_us,
        open=parse_decimal("open", row.open),
        high=parse_decimal("high", row.high),
        low=parse_decimal("low", row.low),
        close=parse_decimal("close", row.close),
        volume=parse_decimal("volume", row.volume),
    )
