"""What trades that are to be counted again come from, whatever holds them."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from ashi.contracts.trade import Trade

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
    batches: AsyncIterator[TradeBatch]
    read_until: Callable[[], Awaitable[int]] | None = None


class TradeSource(Protocol):
    """What can be counted again."""

    def parts(self) -> AsyncIterator[SourcePart]:
        """The parts, one after the other."""
