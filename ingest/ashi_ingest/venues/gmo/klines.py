"""Klines of GMO Coin, over REST, a day of them at a time.

Source: https://api.coin.z.com/docs/en/#klines

    {"status":0,"data":[{"openTime":"1618588800000","open":"6418255","high":"6418255","low":"6399280","close":"6400000",
     "volume":"0.2"}],"responsetime":"2021-04-17T00:00:00.000Z"}
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from ashi.contracts.decimals import parse_decimal
from ashi.contracts.timeframe import DAY_US
from ashi_ingest.venues.answers import decode_answer
from ashi_ingest.venues.base import Kline, KlinePage, Request
from ashi_ingest.venues.gmo.status import Message, check_status
from ashi_ingest.venues.parsing import parse_epoch, parse_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from ashi.contracts.timeframe import Timeframe

PATH: Final = "/public/v1/klines"
INTERVALS: Final = {"1m": "1min", "5m": "5min", "10m": "10min", "15m": "15min", "30m": "30min", "1h": "1hour"}
"""The venue's name of each. Its longer ones begin at 06:00 in Japan, so they are other windows than ours."""

_TURN_US: Final = 10_800_000_000
"""The day of a date begins at 06:00 in Japan, which is 21:00 UTC of the day before: three hours before ours."""


class _Row(msgspec.Struct, rename="camel"):
    open_time: str
    open: str
    high: str
    low: str
    close: str
    volume: str


class _Answer(msgspec.Struct):
    status: int
    data: list[_Row] = []
    messages: list[Message] = []


_answer = msgspec.json.Decoder(_Answer)


class GmoKlines:
    """See `ashi_ingest.venues.base.Klines`."""

    uncounted: Final = None

    def covers(self, timeframe: Timeframe) -> bool:
        """Whether there are klines of that length that are the same windows as ours."""
        return str(timeframe) in INTERVALS

    def pages(self, market: str, timeframe: Timeframe, start: int, end: int) -> Iterator[KlinePage]:
        """The requests for the klines that begin in [start, end), µs: one for each of the venue's days."""
        first = (start + _TURN_US) // DAY_US * DAY_US - _TURN_US
        for begin in range(first, end, DAY_US):
            date = datetime.fromtimestamp((begin + _TURN_US) // 1_000_000, UTC).strftime("%Y%m%d")
            parameters = {"symbol": market, "interval": INTERVALS[str(timeframe)], "date": date}
            yield KlinePage(Request(PATH, parameters), max(begin, start), min(begin + DAY_US, end))

    def read(self, timeframe: Timeframe, body: bytes) -> list[Kline]:
        """The klines of an answer, oldest first. Raises ContractError when it cannot be read, or is an error."""
        answer = decode_answer(_answer, body, PATH)
        check_status(answer.status, answer.messages, PATH)
        return sorted((_read_row(row, timeframe) for row in answer.data), key=lambda kline: kline.open_time)

    def explain(self, field: str, candle: Decimal | int, kline: Decimal | int) -> str | None:
        """Some of its klines have twice the volume."""
        if field == "volume" and kline == 2 * candle:
            return "GMO counts every execution twice here, for the buyer and for the seller"
        return None


def _read_row(row: _Row, timeframe: Timeframe) -> Kline:
    return Kline(
        open_time=parse_epoch("openTime", parse_whole("openTime", row.open_time), "GMO Coin sends milliseconds"),
        length_us=timeframe.length_us,
        open=parse_decimal("open", row.open),
        high=parse_decimal("high", row.high),
        low=parse_decimal("low", row.low),
        close=parse_decimal("close", row.close),
        volume=parse_decimal("volume", row.volume),
    )
