"""A log in memory that crashes: what was sent and not yet acknowledged is kept in part, in order per partition."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ashi.contracts import Timeframe, decode_candle, encode_trade
from ashi.contracts.topics import CANDLES, MARKERS_TABLE, changelog_topic, table_name
from ashi.runtime.kafka.cluster.log_identity import Fingerprint, Standing, fingerprint_of
from ashi.runtime.kafka.cluster.topic_ids import TopicIdentity
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.kafka.consuming.records import keep_newest
from ashi.runtime.kafka.producing.dead_letters import trade_place
from ashi.runtime.kafka.producing.record_batches import OutgoingRecord
from ashi_aggregate.chunk import Chunk
from ashi_aggregate.core.codec import rank_of
from ashi_aggregate.core.window_state import WindowRules
from ashi_aggregate.fencing import SessionGuard
from ashi_aggregate.live import LiveCandles
from ashi_aggregate.log_check import expired_unread
from ashi_aggregate.partition import PartitionOffsets
from ashi_aggregate.pipeline import Pipeline
from ashi_aggregate.write_queue import BUDGET, WriteBudget
from kafka_topics.fetched_batches import fetched


class Crash(Exception):  # noqa: N818  (an event, not an error)
    """The worker has been killed."""


@dataclass
class Record:
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    timestamp_type: int | None = 1
    leader_epoch: int = 0
    headers: Sequence[tuple[str, bytes | None]] = ()


@dataclass
class Broker:
    """What survives a worker: the topics, the committed offsets."""

    partitions: int
    trades: dict[int, list[Record]] = field(default_factory=lambda: defaultdict(list))
    topics: dict[tuple[str, int | None], list[tuple[bytes | None, Any, list]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    committed: dict[int, int] = field(default_factory=dict)
    now_us: int = 0
    clock_ahead_us: int = 0
    takes_append_time: bool = True
    """Whether the topics of the state do; those made by earlier versions do not."""
    early: list[Any] = field(default_factory=list)
    """Candles sent before they opened."""
    earliest: dict[int, int] = field(default_factory=dict)
    topic_id: str = "first"
    leader_epochs: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    read_up_to: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    """The end of what any worker has ever read of a partition."""
    written_at: dict[tuple[str, int | None], list[int]] = field(default_factory=lambda: defaultdict(list))

    def append_time_ms(self) -> int:
        """What the broker's clock says, which may be ahead of the time (`now_us`)."""
        return (self.now_us + self.clock_ahead_us) // 1000

    def keep(self, topic: str, partition: int | None, key: bytes | None, value: bytes | None, headers: list) -> None:
        self.topics[topic, partition].append((key, value, headers))
        self.written_at[topic, partition].append(self.now_us)

    def compact(self, lag_us: int) -> None:
        """Of the records of the changelogs that are older than the lag keep the last of each key, as Kafka does."""
        for (topic, partition), log in self.topics.items():
            if not topic.endswith("-changelog"):
                continue
            times = self.written_at[topic, partition]
            old = sum(time <= self.now_us - lag_us for time in times)
            last = {key: place for place, (key, _, _) in enumerate(log[:old])}
            kept = [place for place in range(len(log)) if place >= old or last[log[place][0]] == place]
            self.topics[topic, partition] = [log[place] for place in kept]
            self.written_at[topic, partition] = [times[place] for place in kept]

    def publish(self, trades: list[Any], timestamp_ms: int = 0) -> None:
        for trade in trades:
            key = trade.symbol.encode()
            self.append(partition_of(key, self.partitions), key, encode_trade(trade), timestamp_ms)

    def append(self, partition: int, key: bytes | None, value: bytes | None, timestamp_ms: int = 0) -> None:
        log = self.trades[partition]
        log.append(Record(len(log), key, value, timestamp_ms, leader_epoch=self.leader_epochs[partition]))

    def cut(self, partition: int, keep: int) -> None:
        """An election that is not clean: the new leader has only so many records, and others get the offsets after."""
        del self.trades[partition][keep:]
        self.leader_epochs[partition] += 1

    def make_anew(self, topic_id: str) -> None:
        """Topic `trades` is deleted and made again, empty."""
        self.topic_id = topic_id
        for partition in self.trades:
            self.trades[partition].clear()
        self.leader_epochs.clear()
        self.earliest.clear()

    def offsets(self, partition: int) -> PartitionOffsets:
        earliest, end = self.earliest.get(partition, 0), len(self.trades[partition])
        return PartitionOffsets(self.committed.get(partition), earliest, end)

    def standing(self, partition: int, offsets: Sequence[int]) -> Standing:
        """What stands at these offsets now."""
        _, begin, end = self.offsets(partition)
        log = self.trades[partition]
        return Standing(begin, end, {at: fingerprint_of(log[at]) for at in offsets if begin <= at < end})

    def messages(self, topic: str) -> list[tuple[bytes | None, Any, list]]:
        return [message for (name, _), sent in self.topics.items() if name == topic for message in sent]

    def late_places(self) -> set[tuple[int, int]]:
        """Where the late trades stand; each letter quotes the record of its place."""
        places = set()
        for _, value, headers in self.messages("trades.late"):
            place = trade_place(headers)
            assert place is not None
            partition, offset = place
            assert self.trades[partition][offset].value == value
            places.add((partition, offset))
        return places

    def candles(self) -> list[Any]:
        return [decode_candle(value) for _, value, _ in self.messages("candles")]


class SimulatedTable:
    def __init__(self, name: str, broker: Broker) -> None:
        self.name = name
        self._rows: dict[int, dict[bytes, bytes]] = defaultdict(dict)
        for partition in range(broker.partitions):
            rows = self._rows[partition]
            for key, value, _ in broker.topics[changelog_topic(name), partition]:
                assert key is not None
                keep_newest(rows, [(key, value)], rank_of)

    def rows(self, partition: int) -> dict[bytes, bytes]:
        return self._rows[partition]

    def put(self, partition: int, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._rows[partition].pop(key, None)
        else:
            self._rows[partition][key] = value


class Acknowledgement:
    """Awaiting it makes durable what was sent to that partition up to then, and nothing else.

    Not a coroutine: a crash leaves some never awaited.
    """

    def __init__(self, worker: Worker, topic: str, partition: int) -> None:
        self.worker = worker
        self.place = topic, partition
        self.sent = worker.sent[topic, partition]
        self.timestamp = worker.broker.append_time_ms()
        self.timestamp_type = 1 if worker.broker.takes_append_time else 0

    def __await__(self) -> Generator[None, None, Acknowledgement]:
        self.worker.flush(self.place, self.sent)
        return self
        yield


class Worker:
    """One aggregate worker over the simulated log. It crashes at its `crash_after`-th send."""

    def __init__(
        self,
        broker: Broker,
        timeframes: tuple[Timeframe, ...],
        rules: WindowRules,
        *,
        seed: int = 0,
        crash_after: int | None = None,
        quiet_close: bool = False,
        now_us: int | None = None,
        begin: dict[int, int] | None = None,
        whole_from: int | None = None,
        clock_ahead_us: int = 0,
        budget: WriteBudget = BUDGET,
        live: Callable[[Worker], LiveCandles] | None = None,
        native: bool = True,
    ) -> None:
        """`native`: it is handed what the native library reads of a fetch, else records as Python reads them.

        `clock_ahead_us`: how far the machine's wall clock is ahead; it may be changed at any time.

        `live`: makes what tells of candles in progress.
        """
        self.broker = broker
        self.native = native
        self.clock_ahead_us = clock_ahead_us
        self.random = random.Random(seed)
        self.crash_after = crash_after
        if now_us is not None:
            broker.now_us = now_us
        self.in_flight: dict[tuple[str, int], list[OutgoingRecord]] = {}
        self.sent: dict[tuple[str, int], int] = defaultdict(int)
        self.next: dict[int, int] = {}
        self.fetched_end: dict[int, int] = {}
        self.rewound: list[tuple[int, int]] = []
        self.last_read: dict[int, Record] = {}
        self.known: dict[int, list[Fingerprint]] = {}
        self.pipeline = Pipeline(
            timeframes=timeframes,
            rules=rules,
            quiet_close=quiet_close,
            partitions=broker.partitions,
            tables=[SimulatedTable(table_name(timeframe), broker) for timeframe in timeframes],
            markers=SimulatedTable(MARKERS_TABLE, broker),
            kafka=self,
            session_guard=SessionGuard(10**12),
            live=None if live is None else live(self),
            begin=begin,
            whole_from=whole_from,
            budget=budget,
            now_us=lambda: broker.now_us + self.clock_ahead_us,
            monotonic_s=lambda: broker.now_us / 1e6,
        )

    async def start(self, partitions: list[int] | None = None) -> None:
        owned = list(range(self.broker.partitions)) if partitions is None else partitions
        self.next = await self.pipeline.resume({number: self.broker.offsets(number) for number in owned})
        self.last_read = {}
        self.known = {number: self.pipeline.known_records(number) for number in owned}

    async def read(self, partition: int, count: int) -> bool:
        """Fold the next records of a partition; False when there are none."""
        begin = self.next[partition]
        records = self.broker.trades[partition][begin : begin + count]
        await self.look_before(partition, records)
        if not records:
            return False
        self.last_read[partition] = records[-1]
        self.next[partition] = records[-1].offset + 1
        self.broker.read_up_to[partition] = max(self.broker.read_up_to[partition], self.next[partition])

        async def acknowledge() -> None:
            return None

        handed = fetched(records) if self.native else records
        await self.pipeline.on_chunk(Chunk(partition, begin, self.next[partition], handed), acknowledge)
        return True

    async def look_before(self, partition: int, records: Sequence[Record]) -> None:
        """What the transport looks at before it hands over a fetch: whether it goes on where the last one ended.

        Raises StateError when it does not, or when what should come has expired.
        """
        begin, last = self.next[partition], self.last_read.get(partition)
        _, earliest, end = self.broker.offsets(partition)
        if earliest > begin:
            raise expired_unread(partition, begin, earliest)
        elected = bool(records) and (last is None or records[0].leader_epoch != last.leader_epoch)
        if elected or begin > end:
            known = self.known.get(partition, [])
            if last is not None:
                known = [fingerprint_of(last), *(each for each in known if each.offset >= begin)]
            await self.pipeline.check_continued(partition, begin, known)

    async def run_to_end(self) -> None:
        while any([await self.read(partition, 7) for partition in self.next]):
            await self.pipeline.checkpoint()
        await self.pipeline.checkpoint()

    async def partitions_of(self, topic: str) -> int:
        return self.broker.partitions

    async def send(self, topic: str, partition: int, records: Sequence[OutgoingRecord]) -> Awaitable[Any]:
        """Kafka takes records in batches, and a crash may come between any two of those: so at any record."""
        assert records
        for record in records:
            if self.crash_after is not None:
                self.crash_after -= 1
                if self.crash_after < 0:
                    self._lose_some()
                    raise Crash
            if topic == CANDLES and (candle := decode_candle(record[1] or b"")).open_time > self.broker.now_us:
                self.broker.early.append(candle)
            self.in_flight.setdefault((topic, partition), []).append(record)
            self.sent[topic, partition] += 1
        return Acknowledgement(self, topic, partition)

    def flush(self, place: tuple[str, int], sent: int) -> None:
        """What was sent to a partition is durable, up to the so-many-th record."""
        in_flight = self.in_flight.get(place, [])
        begin = self.sent[place] - len(in_flight)
        self._keep(place, in_flight[: max(sent - begin, 0)])
        self.in_flight[place] = in_flight[max(sent - begin, 0) :]
        if not self.in_flight[place]:
            del self.in_flight[place]

    async def rewind(self, partition: int, offset: int) -> None:
        self.rewound.append((partition, offset))
        self.last_read.pop(partition, None)
        self.next[partition] = offset

    def mark_durable(self, partition: int, end: int) -> None:
        if self.random.random() < 0.5:  # offsets are committed now and then
            self.broker.committed[partition] = end

    def end_of(self, partition: int) -> int | None:
        """As of the last fetch; `fetched_end` says which one, for a worker that has stood still since."""
        return self.fetched_end.get(partition, len(self.broker.trades[partition]))

    async def ask_ends(self, partitions: Iterable[int]) -> dict[int, int]:
        return {partition: len(self.broker.trades[partition]) for partition in partitions}

    async def identity(self) -> TopicIdentity:
        return TopicIdentity(self.broker.topic_id, dict(self.broker.leader_epochs))

    async def standing(self, offsets: Mapping[int, Sequence[int]]) -> dict[int, Standing]:
        return {number: self.broker.standing(number, asked) for number, asked in offsets.items()}

    def _keep(self, place: tuple[str, int], records: list[OutgoingRecord]) -> None:
        for key, value, headers in records:
            self.broker.keep(*place, key, value, headers)

    def _lose_some(self) -> None:
        """Of each partition's what was sent first is kept, in part."""
        for place, records in self.in_flight.items():
            self._keep(place, records[: self.random.randint(0, len(records))])
        self.in_flight = {}
