"""Files in the layouts that venues publish, made of trades."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from ashi.contracts.decimals import format_decimal
from ashi_ingest.recording.bundled import BUNDLED
from ashi_ingest.recording.sequence import RecordingSequence

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ashi.contracts.trade import Trade

SPOT_HEADER = b"id,price,qty,quoteQty,time,isBuyerMaker,isBestMatch\n"
USDM_HEADER = b"id,price,qty,quote_qty,time,is_buyer_maker\n"
BITFLYER_HEADER = b"id,side,price,size,exec_date,buy_child_order_acceptance_id,sell_child_order_acceptance_id\n"
GMO_HEADER = b"symbol,side,size,price,timestamp\n"


def recorded(venue: str, *paths: Path) -> list[Trade]:
    """The trades of recordings of a venue, read as recordings are; of all that come with Ashi if none is named."""

    def refuse(note: str) -> None:
        raise AssertionError(note)

    recordings = [(venue, path) for path in paths or BUNDLED[venue]]
    return [trade for _, trade in RecordingSequence(recordings).trades(refuse)]


def as_of_file(trades: Iterable[Trade]) -> list[Trade]:
    """The same as a file has them: nobody received them."""
    return [msgspec.structs.replace(trade, received_at=trade.traded_at) for trade in trades]


def spot(trades: Iterable[Trade], *, unit_us: int = 1_000) -> bytes:
    """As Binance publishes trades of spot: prices and sizes with eight digits after the point."""
    return b"".join(
        b"%s,%.8f,%.8f,%.8f,%d,%s,True\n"
        % (
            trade.trade_id.encode(),
            trade.price,
            trade.size,
            trade.price * trade.size,
            trade.traded_at // unit_us,
            b"True" if trade.side == "sell" else b"False",
        )
        for trade in trades
    )


def usdm(trades: Iterable[Trade]) -> bytes:
    """As Binance publishes trades of USD-M futures: as few digits as are needed."""
    return b"".join(
        (
            f"{trade.trade_id},{format_decimal(trade.price)},{format_decimal(trade.size)},{trade.price * trade.size},"
            f"{trade.traded_at // 1000},{'true' if trade.side == 'sell' else 'false'}\n"
        ).encode()
        for trade in trades
    )


def bitflyer(trades: Iterable[Trade]) -> bytes:
    """As programs write executions that save what bitFlyer answers."""
    return b"".join(
        (
            f"{trade.trade_id},{(trade.side or '').upper()},{float(trade.price)},{float(trade.size)},"
            f"{date(trade.traded_at)},JRF1,JRF2\n"
        ).encode()
        for trade in trades
    )


def gmo(market: str, rows: Sequence[tuple[str, str, str, int]]) -> bytes:
    """As GMO Coin publishes executions: of (side, size, price, ms)."""
    return b"".join(
        f"{market},{side},{size},{price},{date(ms * 1_000).replace('T', ' ').removesuffix('Z')}\n".encode()
        for side, size, price, ms in rows
    )


def gmo_frame(market: str, row: tuple[str, str, str, int]) -> tuple[bytes, int]:
    """The same as the websocket pushes it, and when it came, µs."""
    side, size, price, ms = row
    frame: dict[str, Any] = {"channel": "trades", "symbol": market, "side": side}
    frame |= {"size": format_text(size), "price": format_text(price), "timestamp": date(ms * 1_000)}
    return msgspec.json.encode(frame), ms * 1_000


def format_text(number: str) -> str:
    return number.rstrip("0").rstrip(".") if "." in number else number


def date(us: int) -> str:
    at = datetime.fromtimestamp(us // 1_000_000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{us % 1_000_000 // 1_000:03}Z"
