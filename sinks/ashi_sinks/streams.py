"""What a worker keeps in a store: which topics, how their records are read, and what stores the messages in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ashi.contracts.candle import decode_candle
from ashi.contracts.feed import decode_feed_gap
from ashi.contracts.topics import CANDLES, CANDLES_DEAD, FEED_GAPS
from ashi.runtime.metrics import sink as metrics
from ashi_sinks.protocol import newest, newest_gaps

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap
    from ashi.runtime.settings import Settings
    from ashi_sinks.consumer import Record
    from ashi_sinks.protocol import Sink

_Message = TypeVar("_Message")


@dataclass(frozen=True, slots=True)
class Topic(Generic[_Message]):
    """A topic that is kept.

    Attributes:
        name: the topic's.
        decode: the message in a record. Raises ContractError when there is none.
        store: stores messages, in the order of the topic's partitions, all or nothing, durably; any number of times.
            Raises RetryableError, RefusedError or StorageError.

    """

    name: str
    decode: Callable[[Record], _Message]
    store: Callable[[Sequence[_Message]], Awaitable[None]]


class Contents(Protocol):
    """What the worker moves from Kafka to a store. It calls one method at a time."""

    @property
    def name(self) -> str:
        """The metrics' label, and the end of the group `ashi-sink-<name>`."""

    @property
    def what(self) -> str:
        """What is kept, for people: `candles`."""

    @property
    def topics(self) -> Sequence[Topic[Any]]:
        """The topics that are read; the messages of the first are stored first."""

    @property
    def dead(self) -> str:
        """The topic for what cannot be stored."""

    async def open(self) -> None:
        """Connect to the store. Raises StorageError, RetryableError; may then be called again."""

    async def is_empty(self, settings: Settings, /) -> bool:
        """Whether the store was new when it was opened, and is to be filled from the beginning of the topics.

        Asked once the group is joined. Raises StorageError when the store is not one of these topics.
        """

    async def close(self) -> None:
        """Let go of the store. May be called at any time, and again."""


class CandleContents:
    """Topics `candles` and `feed.gaps` in any store."""

    what = CANDLES
    dead = CANDLES_DEAD

    def __init__(self, sink: Sink) -> None:
        self.name = sink.name
        self.topics = (
            Topic(CANDLES, self._decode_candle, self._store_candles),
            Topic(FEED_GAPS, lambda record: decode_feed_gap(record.value or b""), self._store_gaps),
        )
        self._sink = sink
        self._empty = False

    async def open(self) -> None:
        """See `Contents.open`."""
        self._empty = await self._sink.open()

    async def is_empty(self, _settings: Settings, /) -> bool:
        """See `Contents.is_empty`."""
        return self._empty

    async def close(self) -> None:
        """See `Contents.close`."""
        await self._sink.close()

    def _decode_candle(self, record: Record) -> Candle:
        candle = decode_candle(record.value or b"")  # what has no value is no message either
        metrics.candles_read.labels(self.name).inc()
        return candle

    async def _store_candles(self, candles: Sequence[Candle]) -> None:
        batch = newest(candles)
        await self._sink.write(batch)
        metrics.batch_rows.labels(self.name).observe(len(batch))
        metrics.candles_written.labels(self.name).inc(len(batch))

    async def _store_gaps(self, gaps: Sequence[FeedGap]) -> None:
        await self._sink.write_gaps(newest_gaps(gaps))
