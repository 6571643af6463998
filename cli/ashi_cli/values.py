"""What the command line's values may be. Each raises argparse's error with a sentence about what is wrong."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from ashi.contracts.decimals import parse_decimal
from ashi.contracts.errors import ContractError, UsageError
from ashi.contracts.timeframe import Timeframe, parse_timeframes
from ashi.runtime.settings.parsers import duration_between, parse_url
from ashi_ingest.shard import Shard, parse_shard
from ashi_ingest.venues.trade_file import FIELDS


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def port(text: str) -> int:
    """A TCP port."""
    number = positive(text)
    if number > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: ports are from 1 to 65535")
    return number


def url(text: str) -> str:
    """A storage URL."""
    try:
        return parse_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def time(text: str) -> int:
    """A time in ISO 8601, in UTC unless it says otherwise, as µs since the epoch."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in ISO 8601, such as 2026-11-01T00:00:00Z") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1_000_000)


def timeframe(text: str) -> str:
    """A timeframe, such as `1m`."""
    try:
        return str(Timeframe.parse(text))
    except ContractError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def source(text: str) -> str:
    """Which candles: those of `trades`, the `venue`'s own, or `any`."""
    if text not in {"trades", "venue", "any"}:
        raise argparse.ArgumentTypeError(f"{text!r} is none of trades, venue and any")
    return text


def timeframes(text: str) -> str:
    """Timeframes, such as `1m,5m`."""
    try:
        parse_timeframes(text)
    except ContractError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _duration_between(least: str, most: str, text: str) -> int:
    try:
        return duration_between(least, most)(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is wrong: {error}") from None


def retention(text: str) -> int:
    """A duration of an hour or more, in µs."""
    return _duration_between("1h", "3650d", text)


def duration(text: str) -> int:
    """A duration of up to a day, in µs."""
    return _duration_between("0s", "1d", text)


def interval(text: str) -> int:
    """A duration from half a second to an hour, in µs."""
    return _duration_between("500ms", "1h", text)


def market(text: str) -> tuple[str, str]:
    """VENUE:MARKET, as symbols are written; VENUE=MARKET, as it was once, is understood too."""
    found = re.fullmatch(r"([^:=]+)[:=](.+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not VENUE:MARKET, such as bitflyer:BTC_JPY")
    return found[1], found[2]


def recording(text: str) -> tuple[str, Path]:
    """VENUE=PATH."""
    venue, equals, path = text.partition("=")
    if not equals or not venue or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not VENUE=PATH, such as binance=monday.txt.gz")
    return venue, Path(path).expanduser()


def columns(text: str) -> dict[str, str]:
    """FIELD=COLUMN, and more of them after commas."""
    found: dict[str, str] = {}
    for each in text.split(","):
        field, equals, column = each.partition("=")
        if not equals or not column or field not in FIELDS or field in found:
            raise argparse.ArgumentTypeError(
                f"{each!r} is not FIELD=COLUMN, such as price=px, with a field of {', '.join(FIELDS)}, each once"
            )
        found[field] = column
    return found


def parameter(text: str) -> tuple[str, str]:
    """NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, such as length=20")
    return name, value


def amount(text: str) -> Decimal:
    """A sum of money, more than 0."""
    try:
        found = parse_decimal("amount", text)
    except ContractError:
        found = Decimal(0)
    if found <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, such as 10000 or 0.5")
    return found


def part(text: str) -> Decimal:
    """A part of one, from 0 to below 1: 0.001 is a tenth of a percent."""
    try:
        found = parse_decimal("part", text)
    except ContractError:
        found = Decimal(-1)
    if not 0 <= found < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to below 1, such as 0.001 for 0.1 %")
    return found


def shard(text: str) -> Shard:
    """N/M: worker N of M."""
    try:
        return parse_shard(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def trades(text: str) -> str:
    """`topic`, or the URL of a lake."""
    if text != "topic" and not text.startswith(("lake:", "lake+s3:")):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither `topic` nor the URL of a lake, such as lake:////data/lake; "
            "a store to compare comes before it, or with --storage"
        )
    return text
