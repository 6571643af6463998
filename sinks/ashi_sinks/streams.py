"""What a worker moves: each topic it reads is a stream, from records over messages into the store at its end."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ashi.contracts.records import candle_in, feed_gap_in, feed_status_in
from ashi.contracts.topics import CANDLES, CANDLES_DEAD, FEED_GAPS, FEED_STATUS
from ashi.runtime.metrics import sink as metrics
from ashi_sinks.protocol import newest, newest_gaps, newest_statuses

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ashi.contracts.candle import Candle
    from ashi.contracts.feed import FeedGap, FeedStatus
    from ashi.runtime.settings import Settings
    from ashi_sinks.consumer import Record
    from ashi_sinks.protocol import Sink

_Message = TypeVar("_Message")


@dataclass(frozen=True, slots=True)
class Stream(Generic[_Message]):
    """One topic on its way into the store.

    Attributes:
        topic: its name.
        decode: the message in a record. Raises ContractError when there is none.
        write: writes messages, in the order of the topic's partitions, all or nothing, durably; any number of times.
            Raises RetryableError, RefusedError, RowsLostError or StorageError.
        look: sees whether what was written is still there, as each write does. Raises as `Sink.look`.
        timeframe: of a message, by which the delays of rows are told; None where they are not.

    """

    topic: str
    decode: Callable[[Record], _Message]
    write: Callable[[Sequence[_Message]], Awaitable[None]]
    look: Callable[[], Awaitable[None]]
    timeframe: Callable[[_Message], str] | None = None


class Streams(Protocol):
    """The streams of one worker and the store they end in. The worker calls one method at a time."""

    @property
    def name(self) -> str:
        """The metrics' label, and the end of the group `ashi-sink-<name>`."""

    @property
    def what(self) -> str:
        """What is stored, for people: `candles`."""

    @property
    def streams(self) -> Sequence[Stream[Any]]:
        """One for each topic; the messages of the first are written first."""

    @property
    def dead_topic(self) -> str:
        """The topic for what cannot be stored."""

    @property
    def remedy(self) -> str:
        """What to do when a topic is not the log any more that was read, for people."""

    async def open(self) -> None:
        """Connect to the store. Raises StorageError, RetryableError; may then be called again."""

    async def is_empty(self, settings: Settings, /) -> bool:
        """Whether the store was new when it was opened, and is to be filled from the beginning of the topics.

        Asked once the group is joined, and when a topic was made anew meanwhile. Raises StorageError when the store is
        not one of these topics.
        """

    async def close(self) -> None:
        """Let go of the store. May be called at any time, and again."""


class CandleStreams:
    """Topics `candles`, `feed.gaps` and `feed.status` into any store.

    In this order, so that a status does not say of a batch's candles that they are complete before those that correct
    them, and the gaps in them, are stored.
    """

    what = CANDLES
    dead_topic = CANDLES_DEAD
    remedy = (
        "Nothing wrong is stored by reading it again, as a row only yields to a greater version: start with "
        "--from-beginning, or fill another store in a group of its own (ASHI_SINK_GROUP). Then `ashi verify` says what "
        "differs; if topic trades was cut or made anew as well, run `ashi aggregate reconfigure` first"
    )

    def __init__(self, sink: Sink) -> None:
        self.name = sink.name
        self.streams = (
            Stream(
                CANDLES,
                self._decode_candle,
                self._write_candles,
                lambda: sink.look("candles"),
                timeframe=attrgetter("timeframe"),
            ),
            Stream(FEED_GAPS, feed_gap_in, self._write_gaps, lambda: sink.look("feed_gaps")),
            Stream(FEED_STATUS, feed_status_in, self._write_statuses, lambda: sink.look("feed_status")),
        )
        self._sink = sink
        self._empty = False

    async def open(self) -> None:
        """See `Streams.open`."""
        self._empty = await self._sink.open()

    async def is_empty(self, _settings: Settings, /) -> bool:
        """See `Streams.is_empty`."""
        return self._empty

    async def close(self) -> None:
        """See `Streams.close`."""
        await self._sink.close()

    def _decode_candle(self, record: Record) -> Candle:
        candle = candle_in(record)
        metrics.candles_read.labels(self.name).inc()
        return candle

    async def _write_candles(self, candles: Sequence[Candle]) -> None:
        batch = newest(candles)
        await self._sink.write(batch)
        metrics.batch_rows.labels(self.name).observe(len(batch))
        metrics.candles_written.labels(self.name).inc(len(batch))

    async def _write_gaps(self, gaps: Sequence[FeedGap]) -> None:
        await self._sink.write_gaps(newest_gaps(gaps))

    async def _write_statuses(self, statuses: Sequence[FeedStatus]) -> None:
        await self._sink.write_statuses(newest_statuses(statuses))
