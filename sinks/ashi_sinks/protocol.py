"""What a store must be able to do, and how it says that it cannot.

A new store is a package with a `Sink` and a `CandleReader`, one line in `ashi_sinks.registry`, and one subclass of the
certification suite in `tests/sinks/sink_certification.py`, which states everything below as tests.

    StorageError            the worker stops: continuing would not help
    ├── RetryableError      the store is away, locked or full: the worker tries again until it is not
    ├── RefusedError        the store is there and refuses a row: the worker finds the row and puts it aside
    └── RowsLostError       the store is there and lacks what was stored: the worker reads its topic from the beginning
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from ashi.contracts.errors import StorageError
from ashi.contracts.feed import FeedStatus
from ashi.contracts.timeframe import Timeframe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap
    from ashi.contracts.venue_candle import VenueCandle

STATUS_FIELDS: Final = tuple(name for name in FeedStatus.__struct_fields__ if name != "workers")
"""What is stored of a status: who reads a symbol is of the moment."""

TableName: TypeAlias = Literal["candles", "feed_gaps", "feed_status"]
"""What the table of each topic is called in every store."""

_Message = TypeVar("_Message")


class RetryableError(StorageError):
    """The store cannot be reached or written at the moment. Nothing of the batch was stored."""


class RefusedError(StorageError):
    """The store refuses at least one row of the batch, and would again. Nothing of the batch was stored."""


class RowsLostError(StorageError):
    """Rows that were stored are gone: their table was emptied or replaced. Nothing of the batch was stored.

    Said once; the next write goes on with what is there. The worker then reads the table's topic from its beginning.

    Attributes:
        topic: whose rows they are, which the worker fills in.

    """

    topic: str = ""


class Sink(Protocol):
    """The writing side of a store. The worker calls one method at a time."""

    @property
    def name(self) -> str:
        """The store's name: the URL's scheme, the metrics' label, and the end of the group `ashi-sink-<name>`."""

    async def open(self) -> bool:
        """Connect, and make the tables that are missing, or name the command that does.

        True when there is no candle in the store: the worker then fills it from the beginning of the topics. Raises
        StorageError when the store cannot be used and RetryableError when it cannot be used yet; may then be called
        again.
        """

    async def write(self, candles: Sequence[Candle]) -> int:
        """Store a batch, all of it or nothing, durably, and give the number of rows that were added or changed.

        `candles` holds at most one candle of each (symbol, timeframe, open_time), see `newest`. A candle replaces the
        stored one only if its version is greater, so a batch may be written any number of times, in any order with
        others. Raises RetryableError, RefusedError or StorageError; nothing was stored then.
        """

    async def write_gaps(self, gaps: Sequence[FeedGap]) -> int:
        """Store a batch of feed gaps as `write` does candles; a batch of its own, apart from that of the candles.

        `gaps` holds at most one gap of each (symbol, from_time), see `newest_gaps`. A gap replaces the stored one only
        if its `updated_at` is greater.
        """

    async def write_statuses(self, statuses: Sequence[FeedStatus]) -> int:
        """Store how feeds are, as `write` does candles; a batch of its own, written after candles and gaps.

        `statuses` holds at most one of each symbol, see `newest_statuses`. It replaces the stored one only if its
        `updated_at` is greater. `STATUS_FIELDS` are stored, `workers` is not.
        """

    async def write_venue_candles(self, candles: Sequence[VenueCandle]) -> int:
        """Store candles of venues' own, as `write` does those of trades, in a table of their own: `venue_candles`.

        Not by a worker, but by `ashi history klines`; a worker may write meanwhile. `candles` holds at most one of each
        (symbol, timeframe, open_time). It replaces the stored one only if its `fetched_at` is greater.
        """

    async def look(self, table: TableName) -> None:
        """See whether a table is still the one that was written to, with its columns and its rows.

        Every write does so too; this is for when there is nothing to write. Raises RowsLostError when it was emptied,
        StorageError when its columns are not ours any more or it is gone, RetryableError when that cannot be seen now.
        """

    async def close(self) -> None:
        """Let go of the store. May be called at any time, and again."""


class SeriesSpan(NamedTuple):
    """A series that there are candles of, and the open times of the first and of the last one, µs."""

    symbol: str
    timeframe: str
    first: int
    last: int


class CandleReader(Protocol):
    """The reading side of a store, for people and their tools; works while a worker writes."""

    async def open(self) -> None:
        """Connect. Raises StorageError when there is no store of candles; never makes one."""

    def read(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[Candle]:
        """The candles of one series in the order of their `open_time`.

        `start` (inclusive) and `end` (exclusive) bound `open_time`, µs; of what they leave, `limit` keeps the latest.
        """

    async def spans(self) -> list[SeriesSpan]:
        """Each series there are candles of, by symbol and then from the finest timeframe."""

    async def count(self, symbol: str | None = None, timeframe: str | None = None) -> int:
        """The number of candles stored, of all symbols and timeframes or of those given."""

    async def greatest_version(self) -> int | None:
        """The greatest `version` of all candles stored; None where there are none. It may read all of them."""

    async def gaps(self, symbol: str, start: int | None = None, end: int | None = None) -> list[FeedGap]:
        """The symbol's gaps, in whatever state, that overlap the time from `start` to `end`, by `from_time`.

        `start` (inclusive) and `end` (exclusive) are µs; None is without bound. See
        `ashi.contracts.feed.overlaps`. A store made before there were gaps has none.
        """

    async def status(self, symbol: str) -> FeedStatus | None:
        """How the symbol's feed was when it was said last, without `workers`; None when nothing was said of it.

        Its `complete_until` and the gaps tell which candles are complete: `ashi.contracts.feed.is_complete`. A store
        made before statuses were kept has none.
        """

    async def statuses(self) -> list[FeedStatus]:
        """Those of all symbols that something was said of; see `status`."""

    def venue_candles(
        self, symbol: str, timeframe: str, start: int | None = None, end: int | None = None, limit: int | None = None
    ) -> AsyncIterator[VenueCandle]:
        """The venue's own candles of one series, as `read` gives those of trades; also where there are such.

        None in a store made before they were kept. Whoever wants both reads through `ashi_sinks.joined`.
        """

    async def venue_spans(self) -> list[SeriesSpan]:
        """Each series there are candles of a venue's own of, in the order of `spans`."""

    async def close(self) -> None:
        """Let go of the store. May be called at any time, and again."""


def by_symbol_and_length(spans: Iterable[SeriesSpan]) -> list[SeriesSpan]:
    """In the order of `CandleReader.spans`."""
    return sorted(spans, key=lambda span: (span.symbol, Timeframe.parse(span.timeframe)))


def newest(candles: Iterable[Candle]) -> list[Candle]:
    """One candle of each (symbol, timeframe, open_time): that with the greatest version, the first of equals."""
    return _greatest(
        candles,
        key=lambda candle: (candle.symbol, candle.timeframe, candle.open_time),
        rank=lambda candle: candle.version,
    )


def newest_gaps(gaps: Iterable[FeedGap]) -> list[FeedGap]:
    """One gap of each (symbol, from_time): that with the greatest `updated_at`, the first of equals."""
    return _greatest(gaps, key=lambda gap: (gap.symbol, gap.from_time), rank=lambda gap: gap.updated_at)


def newest_statuses(statuses: Iterable[FeedStatus]) -> list[FeedStatus]:
    """One status of each symbol: that with the greatest `updated_at`, the first of equals."""
    return _greatest(statuses, key=lambda status: status.symbol, rank=lambda status: status.updated_at)


def _greatest(
    messages: Iterable[_Message], key: Callable[[_Message], Hashable], rank: Callable[[_Message], int]
) -> list[_Message]:
    kept: dict[Hashable, _Message] = {}
    for message in messages:
        other = kept.setdefault(key(message), message)
        if rank(message) > rank(other):
            kept[key(message)] = message
    return list(kept.values())
