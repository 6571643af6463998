"""Exact numbers: decimal strings on the wire, `Decimal` in memory, never floats."""

from __future__ import annotations

import decimal
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import cache
from typing import Any, Final

import msgspec

from ashi.contracts.errors import ContractError

MAX_DIGITS: Final = 38
"""A price or size has at most this many digits, those before and after the point counted together."""

EXACT: Final = decimal.Context(
    # The widest sum is that of products of two such numbers: 76 digits before the point, 76 after it, and 13
    # more for 2**40 of them. So nothing is ever rounded, and should it be, that is an error and not a number.
    prec=200,
    rounding=decimal.ROUND_HALF_EVEN,
    Emin=decimal.MIN_EMIN,
    Emax=decimal.MAX_EMAX,
    traps=[decimal.Inexact, decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)
"""The context of all sums. Its use is explicit: the default context of a thread would round to 28 digits."""

_TOO_GREAT: Final = Decimal(10) ** MAX_DIGITS
_PLAIN = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)


def parse_decimal(field: str, text: str) -> Decimal:
    """Read plain notation exactly. Raises ContractError naming `field` for anything else (`NaN`, `1e5`, `1_0`)."""
    if _PLAIN.fullmatch(text) is None:
        raise ContractError(f"{field} {text[:60]!r} is not a number in plain notation, such as 61837.63")
    return Decimal(text)


_CHARACTERS: Final = b'"0123456789.eE+-'
"""Of a decimal in a message, with the quotes around it."""


def needs_notation_check(data: bytes, underscores: int, values: Iterable[str]) -> bool:
    """Whether a decimal in this JSON may be written as only Python reads it: `1_000`, ` 1`, digits of other scripts.

    Seen in bytes, which takes next to nothing. `underscores`: how many there are in the names of fields; `values`: what
    else may have some. True when in doubt; then `is_plain_notation` tells.
    """
    if not data.isascii() or b" " in data or b"\\" in data:
        return True
    more = data.count(b"_") - underscores
    return more != 0 and more != "".join(values).count("_")


def is_plain_notation(values: Iterable[msgspec.Raw]) -> bool:
    """Whether all of these are JSON numbers, or strings of characters that stand in one.

    Strings may put these together as JSON does not, as in `"+1"`, `".5"`, `"1."` and `"01"`; what is no number at all,
    such as `"1-"`, decoding refuses.
    """
    return not b"".join(values).translate(None, _CHARACTERS)


@cache
def _fields_decoder(fields: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    """Finds these fields as they are written, and passes over all others, whose names may even be no UTF-8."""
    null = msgspec.Raw(b"null")
    return msgspec.json.Decoder(msgspec.defstruct("Written", [(field, msgspec.Raw, null) for field in fields]))


def check_notation(message: bytes, fields: tuple[str, ...]) -> None:
    """Refuse a JSON object in which one of these fields is a decimal that `is_plain_notation` refuses; null is none.

    The message is one that has been decoded by its types. Raises ContractError.
    """
    written = _fields_decoder(fields).decode(message)
    for field in fields:
        raw = getattr(written, field)
        if bytes(raw) != b"null" and not is_plain_notation([raw]):
            text = bytes(raw)[:60].decode(errors="replace")
            raise ContractError(f"{field} {text} is not a number in plain notation, such as 61837.63")


def check_amount(field: str, value: Decimal) -> Decimal:
    """Refuse what cannot be a price or size: NaN, infinities, negatives, more than 38 digits."""
    text = str(value)
    if len(text) <= MAX_DIGITS and text[0].isdigit() and "E" not in text:
        return value  # nearly all are; what follows takes six times as long
    if not value.is_finite():
        raise ContractError(f"{field} {value} is not a finite number")
    if value < 0:
        raise ContractError(f"{field} {value} is negative")
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)  # noqa: S101  (finite, so never 'n', 'N' or 'F')
    digits = max(value.adjusted() + 1, 1) + max(-exponent, 0)
    if digits > MAX_DIGITS:
        raise ContractError(f"{field} {str(value)[:60]} has {digits} digits; at most {MAX_DIGITS} are allowed")
    return value


def all_amounts_sound(values: Sequence[Decimal]) -> bool:
    """Whether `check_amount` would accept every value; False when in doubt. Raises ArithmeticError for a NaN.

    The sum has the longest fraction of all values, so the greatest value and the sum bound the digits of each.
    """
    greatest = max(values)
    if min(values) < 0 or greatest >= _TOO_GREAT:
        return False
    with decimal.localcontext(EXACT):
        exponent = sum(values, Decimal(0)).as_tuple().exponent
    return isinstance(exponent, int) and max(greatest.adjusted() + 1, 1) + max(-exponent, 0) <= MAX_DIGITS


def format_decimal(value: Decimal) -> str:
    """Plain notation: no exponent, no trailing zeros (`61837.63`, `0.00000001`, `0`)."""
    text = str(value)  # plain already but for very small or large exponents, and three times as fast as format()
    if text[-1] != "0" and "E" not in text:
        return text  # most are, and what follows costs as much again
    if "E" in text:
        text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
