"""How each venue writes numbers and times."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Final

from ashi_simulator.executions import PER_MS, PER_S

_EIGHT: Final = Decimal("0.00000001")


def venue_price(venue: str, plain: str) -> str:
    """A price in plain notation as the venue writes it: bitFlyer `5860832.0`, Binance `61837.63000000`."""
    if venue == "bitflyer":
        return plain if "." in plain else plain + ".0"
    return _padded(plain) if venue == "binance" else plain


def venue_size(venue: str, plain: str) -> str:
    """A size in plain notation as the venue writes it."""
    return _padded(plain) if venue == "binance" else plain


def _padded(plain: str) -> str:
    number = Decimal(plain)
    exponent = number.as_tuple().exponent
    return plain if isinstance(exponent, int) and exponent < -8 else format(number.quantize(_EIGHT), "f")


@lru_cache(maxsize=4096)
def scientific(plain: str) -> str:
    """What bitFlyer's websocket makes of a small number: `1e-08`. Others stay as they are."""
    if not plain.startswith("0.0000") or not plain.strip("0."):
        return plain
    sign, digits, exponent = Decimal(plain).normalize().as_tuple()
    assert isinstance(exponent, int) and not sign  # noqa: S101, PT018
    power = exponent + len(digits) - 1
    text = "".join(map(str, digits))
    return f"{text[0]}{'.' if text[1:] else ''}{text[1:]}e-{-power:02}"


@lru_cache(maxsize=4096)  # REST lists the last thousand executions again and again
def second_text(second: int) -> str:
    """`2021-12-12T23:05:29`, UTC."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def pushed_date(at: int) -> str:
    """`exec_date` over bitFlyer's websocket: 100 ns with trailing zeros trimmed, and Z."""
    second, rest = divmod(at, PER_S)
    if rest % 10:
        return f"{second_text(second)}.{rest:07}Z"
    return f"{second_text(second)}.{rest:07}".rstrip("0").rstrip(".") + "Z"


def rest_date(at: int) -> str:
    """`exec_date` of the same execution over bitFlyer's REST: milliseconds with trailing zeros trimmed, no Z."""
    second, rest = divmod(at, PER_S)
    ms = rest // PER_MS
    return f"{second_text(second)}.{ms:03}".rstrip("0").rstrip(".") if ms else second_text(second)


def ms_date(at: int) -> str:
    """A time as GMO writes it: `2025-04-30T13:09:43.601Z`."""
    second, rest = divmod(at, PER_S)
    return f"{second_text(second)}.{rest // PER_MS:03}Z"
