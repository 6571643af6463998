"""The request to `ashi verify` and `ashi rebuild`, checked before anything is read; and errors of comparing."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from ashi.contracts.errors import AshiError, ContractError, UsageError
from ashi.contracts.symbol import split_symbol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class NotComparedError(AshiError):
    """Something that is needed to compare is missing or out of reach. Whoever reads 1 as `differs` must not get it."""

    exit_status: ClassVar[int] = 2


@contextmanager
def not_compared() -> Iterator[None]:
    """Around a comparison: an error means that there was none. UsageError stays, others become NotComparedError."""
    try:
        yield
    except UsageError:
        raise
    except AshiError as error:
        raise NotComparedError(str(error)) from error


def check_request(symbols: Sequence[str], start: int, end: int) -> None:
    """Raise UsageError for a symbol that cannot be one, or a time that ends before it begins."""
    for symbol in symbols:
        try:
            split_symbol(symbol)
        except ContractError as error:
            raise UsageError(f"--symbol: {error}") from None
    if start >= end:
        raise UsageError("--from must be before --to")
