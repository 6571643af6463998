"""The request to `ashi verify` and `ashi rebuild`, checked before anything is read; and errors of comparing."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ashi.contracts.errors import AshiError, ContractError, UsageError
from ashi.contracts.symbol import split_symbol
from ashi_audit.sources.base import END_OF_TIME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What to compare.

    Attributes:
        storage: the store's URL.
        symbols: only these; all if empty. `timeframes` likewise.
        start: only windows that began then or later, µs; `end` before that.
        json: a line for each difference, and a summary, as JSON.
        recordings: venue and path of each recording to count, instead of topic `trades`.
        lake: the URL of a lake to count the trades of, instead.

    """

    storage: str
    symbols: Sequence[str] = ()
    timeframes: Sequence[str] = ()
    start: int = 0
    end: int = END_OF_TIME
    json: bool = False
    recordings: Sequence[tuple[str, Path]] = ()
    lake: str | None = None

    def wants(self, symbol: str, timeframe: str) -> bool:
        """Whether a series is to be compared."""
        return (not self.symbols or symbol in self.symbols) and (not self.timeframes or timeframe in self.timeframes)


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
