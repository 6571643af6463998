"""What trades that are to be counted again come from, whatever holds them."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from ashi.contracts.trade import Trade
    from ashi_audit.recomputed import Totals

MARGIN_US: Final = 600_000_000
"""A trade is appended to the log after it was made, but for clocks that differ (MAX_AHEAD_US and the broker's)."""
END_OF_TIME: Final = 2**63

_NONE: Final[Mapping[int, Trade]] = MappingProxyType({})


class TradeBatch(NamedTuple):
    """Trades of one symbol and their offsets; by offset, those that came too late and that the part has not told of."""

    symbol: str
    trades: Sequence[Trade]
    offsets: Sequence[int]
    late: Mapping[int, Trade] = _NONE


class AddedUp(NamedTuple):
    """Trades of one symbol that somebody else has added up, each once and none beyond the horizon.

    Attributes:
        totals: by finest window, oldest first.
        late: by offset, those that came too late for the workers; they are in no `totals`.
        clock: the greatest `traded_at` of all of these, µs; `first` the least.

    """

    symbol: str
    totals: Sequence[Totals]
    late: Mapping[int, Trade]
    clock: int
    first: int


@dataclass(frozen=True, slots=True)
class SourcePart:
    """A part of the trades that no other part has symbols of: a partition, or all of some recordings.

    Attributes:
        number: of the partition of topic `trades` that its symbols are in; None for recordings.
        late: by symbol and offset, the trades that came too late for the workers.
        begins_at: as `CandleRules.whole_from` takes it, µs; 0 where it begins with the log.
        batches: all trades, the late ones too.
        read_until: tells when all was appended to its partition that is read, µs: before then; None: nobody knows.

    """

    number: int | None
    late: Mapping[str, Mapping[int, Trade]]
    begins_at: int
    batches: AsyncIterator[TradeBatch | AddedUp]
    read_until: Callable[[], Awaitable[int]] | None = None


class TradeSource(Protocol):
    """What can be counted again."""

    def parts(self) -> AsyncIterator[SourcePart]:
        """The parts, one after the other."""
