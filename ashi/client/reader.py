"""One topic as an asynchronous iterator of messages."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from ashi.client.either_way import EitherWay
from ashi.client.position import Position
from ashi.contracts.errors import ContractError, UsageError
from ashi.runtime.kafka.cluster.log_identity import fingerprint_of
from ashi.runtime.kafka.consuming.follow import TopicFollower
from ashi.runtime.library_logs import limit_client_library

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from ashi.contracts.records import KafkaRecord
    from ashi.runtime.kafka.cluster.log_identity import Fingerprint
    from ashi.runtime.kafka.consuming.follow import Start
    from ashi.runtime.settings import Settings

_POLL_S: Final = 1.0

_Message = TypeVar("_Message")


@dataclass(frozen=True, slots=True)
class UnreadableRecord:
    """A record that holds no message of its topic.

    Attributes:
        topic: where it stands, with `partition` and `offset`.
        key: the record's.
        value: the record's, as it was read.
        error: what is wrong with it.

    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    error: ContractError

    @property
    def place(self) -> str:
        """Where it stands, for people: `candles/3/1789`."""
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Source(Generic[_Message]):
    """What is read, and which of it is wanted.

    Attributes:
        topic: the topic's name.
        message_in: the message in a record; None for one that is passed over. Raises ContractError.
        keys: holds those of the records that are looked at; None for all.
        wanted: whether a message is to be handed out; is asked once of each, in the topic's order.

    """

    topic: str
    message_in: Callable[[KafkaRecord], _Message | None]
    keys: Container[bytes | None] | None
    wanted: Callable[[_Message], bool]


class Reader(EitherWay[_Message]):
    """The messages of one topic, as an asynchronous iterator, or as a plain one; made by `read_candles` and its like.

    `async with` connects it and disconnects it; without, the first message that is asked for connects it, and the end
    of the topic, an error or `aclose` disconnects it. To stop waiting for a message (`asyncio.timeout`) loses none.
    Outside of asyncio the same is done by `with`, `for`, `next_within` and `close`.

    Raises BrokerError when Kafka cannot be reached at the start, has no such topic or refuses the login; StateError
    when records that were still to be read are not in the log any more, or those that were read before are others now
    (the log was cut or the topic made anew, so some may be missing); ContractError for a record that holds no
    message, unless `on_unreadable` takes it. While a broker restarts or a partition moves, it waits.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source[_Message],
        *,
        start: Start,
        follow: bool,
        on_unreadable: Callable[[UnreadableRecord], None] | None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._start = start
        self._follow = follow
        self._on_unreadable = on_unreadable
        self._follower: TopicFollower | None = None
        self._ends: dict[int, int] = {}
        self._records: deque[Any] = deque()
        self._offsets: dict[int, int] = {}
        self._last: dict[int, Any] = {}
        self._before: dict[int, Fingerprint] = {}
        self._topic_id: str | None = None
        self._unreadable = 0
        self._closed = False

    @property
    def position(self) -> Position:
        """How far the topic has been read: all messages up to the last one that was handed out, and that one.

        Store it when what was handed out has been dealt with, and give it as `since` to go on from there. Raises
        UsageError before the reader has connected: it cannot know yet.
        """
        if not self._offsets:
            raise UsageError(f"the reader of topic {self._source.topic} has not begun: ask it for a message first")
        last_read = self._before | {number: fingerprint_of(record) for number, record in self._last.items()}
        return Position(self._source.topic, dict(self._offsets), last_read, self._topic_id)

    @property
    def last_ends(self) -> dict[int, int]:
        """The end of each partition, as Kafka said it with the records that were fetched last; empty if not connected.

        All that stood there by then has been handed out once `position` is there.
        """
        return {} if self._follower is None else self._follower.last_ends

    @property
    def unreadable(self) -> int:
        """How many records were handed to `on_unreadable`."""
        return self._unreadable

    async def aclose(self) -> None:
        """Disconnect. May be called at any time, and again; the iteration is over then."""
        self._closed = True
        self._records.clear()
        follower, self._follower = self._follower, None
        if follower is not None:
            await follower.close()

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __anext__(self) -> _Message:
        try:
            while not self._closed:
                message = self._next_fetched()
                if message is not None:
                    return message
                await self._fetch()
        except Exception:
            await self.aclose()
            raise
        raise StopAsyncIteration

    def _wait(self, deadline: float | None) -> _Message | None:
        """As of every one that blocks; but only what has to be fetched takes the way through the other thread."""
        try:
            while not self._closed:
                message = self._next_fetched()
                if message is not None:
                    return message
                if deadline is not None and time.monotonic() >= deadline:
                    return None
                self._run(self._fetch(), deadline)
        except Exception:
            self.close()
            raise
        self.close()
        return None

    def _is_connected(self) -> bool:
        return self._follower is not None

    def _next_fetched(self) -> _Message | None:
        """The next message of what has been fetched; None where none is left."""
        while self._records:
            message = self._take(self._records.popleft())
            if message is not None:
                return message
        return None

    async def _fetch(self) -> None:
        """Get further records; close the reader when there will be none."""
        self._check_way()
        if self._follower is None:
            await self._open()
        assert self._follower is not None  # noqa: S101
        self._offsets |= self._follower.positions  # everything that was fetched up to there has been handed out
        if not self._follow and all(self._offsets[number] >= end for number, end in self._ends.items()):
            await self.aclose()
        else:
            self._records.extend(await self._follower.poll(_POLL_S))

    async def _open(self) -> None:
        limit_client_library()
        follower = TopicFollower(self._settings, self._source.topic)
        try:
            await follower.open(self._start)
            self._ends = {} if self._follow else await follower.ends()
        except BaseException:
            await follower.close()
            raise
        self._offsets, self._before = dict(follower.positions), dict(follower.last_read)
        self._topic_id = follower.topic_id
        self._follower = follower

    def _take(self, record: Any) -> _Message | None:
        """The message in a record; None when it is not wanted."""
        if not self._follow and record.offset >= self._ends.get(record.partition, 0):
            return None  # came after the reader began; its position stays before it
        message = None
        if self._source.keys is None or record.key in self._source.keys:
            message = self._decode(record)
        self._offsets[record.partition] = record.offset + 1
        self._last[record.partition] = record
        return message if message is not None and self._source.wanted(message) else None

    def _decode(self, record: Any) -> _Message | None:
        try:
            return self._source.message_in(record)
        except ContractError as error:
            if self._on_unreadable is None:
                raise ContractError(
                    f"the record {record.topic}/{record.partition}/{record.offset} cannot be read: {error}; "
                    "to read on past such records, take them with on_unreadable"
                ) from None
            self._unreadable += 1
            self._on_unreadable(
                UnreadableRecord(record.topic, record.partition, record.offset, record.key, record.value, error)
            )
            return None
