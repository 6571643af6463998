"""An independent oracle: candles from a list of trades, in another style than the core and sharing no code with it.

No windows that open and close, no merging, no versions: sort, group, add up.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import groupby
from typing import Any

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Key = tuple[str, str, int]


def seconds(timeframe: str) -> int:
    return int(timeframe[:-1]) * UNITS[timeframe[-1]]


def exact(value: Fraction) -> Decimal:
    with localcontext() as context:
        context.prec = 400
        return Decimal(value.numerator) / Decimal(value.denominator)


def candles_of(trades: list[Any], timeframes: list[str]) -> dict[Key, dict[str, Any]]:
    """Every window that has a trade, by (symbol, timeframe, open_time in µs), with every field but the version."""
    result = {}
    for timeframe in timeframes:
        length = seconds(timeframe) * 1_000_000

        def window(trade: Any, length: int = length) -> tuple[str, int]:
            return trade.symbol, trade.traded_at // length * length

        for (symbol, start), members in groupby(sorted(trades, key=window), key=window):
            group = sorted(members, key=lambda t: (t.traded_at, t.sequence))
            takers = [t for t in group if t.side == "buy"]
            result[symbol, timeframe, start] = {
                "close_time": start + length,
                "open": group[0].price,
                "high": max(t.price for t in group),
                "low": min(t.price for t in group),
                "close": group[-1].price,
                "volume": exact(sum((Fraction(t.size) for t in group), Fraction())),
                "quote_volume": exact(sum((Fraction(t.size) * Fraction(t.price) for t in group), Fraction())),
                "trade_count": len(group),
                "taker_buy_volume": exact(sum((Fraction(t.size) for t in takers), Fraction())),
                "taker_buy_quote_volume": exact(
                    sum((Fraction(t.size) * Fraction(t.price) for t in takers), Fraction())
                ),
                "first_trade_id": group[0].trade_id,
                "last_trade_id": group[-1].trade_id,
            }
    return result


def timely(trades: list[Any], finest: str, horizon_us: int) -> list[Any]:
    """Of trades in the order of the log, those that count: not further behind their symbol than the horizon."""
    length = seconds(finest) * 1_000_000
    newest: dict[str, int] = {}
    counted = []
    for trade in trades:
        clock = max(newest.get(trade.symbol, 0), trade.traded_at)
        newest[trade.symbol] = clock
        end_of_window = (trade.traded_at // length + 1) * length
        if clock - end_of_window <= horizon_us:
            counted.append(trade)
    return counted


def unique(trades: list[Any]) -> list[Any]:
    """Of trades in the order of the log, the first of each id."""
    first: dict[tuple[str, str], Any] = {}
    for trade in trades:
        first.setdefault((trade.symbol, trade.trade_id), trade)
    return list(first.values())


def closed(
    expected: dict[Key, dict[str, Any]], trades: list[Any], lateness_us: int, max_flat: int = 1440
) -> dict[Key, dict[str, Any]]:
    """Of the oracle's candles, those whose window the newest trade of their symbol has closed, and the flat ones."""
    newest: dict[str, int] = {}
    for trade in trades:
        newest[trade.symbol] = max(newest.get(trade.symbol, 0), trade.traded_at)
    result = dict(expected)
    for (symbol, timeframe, start), value in expected.items():
        length = seconds(timeframe) * 1_000_000
        for number in range(1, max_flat + 1):
            window = (symbol, timeframe, start + number * length)
            if window in expected or window[2] + length + lateness_us > newest[symbol]:
                break
            result[window] = {
                "close_time": window[2] + length,
                **dict.fromkeys(("open", "high", "low", "close"), value["close"]),
                **dict.fromkeys(("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume"), Decimal(0)),
                "trade_count": 0,
                "first_trade_id": None,
                "last_trade_id": None,
            }
    return {key: value for key, value in result.items() if value["close_time"] + lateness_us <= newest[key[0]]}


def stored(candles: list[Any]) -> dict[Key, dict[str, Any]]:
    """What a reader keeps that takes the greater version, and the first of equals; every field but the version.

    Fails when one version has two contents.
    """
    best: dict[Key, Any] = {}
    for candle in candles:
        key = (candle.symbol, candle.timeframe, candle.open_time)
        known = best.get(key)
        if known is not None and known.version == candle.version:
            assert known == candle, f"two contents of one version: {known} and {candle}"
        if known is None or candle.version > known.version:
            best[key] = candle
    skipped = {"symbol", "timeframe", "open_time", "version"}
    return {
        key: {field: getattr(candle, field) for field in candle.__struct_fields__ if field not in skipped}
        for key, candle in best.items()
    }
