"""What a fetch has read: the records, and from where to where there are no others for a reader.

Offsets do not follow each other. The markers that end transactions take some, so do records of aborted transactions,
and compaction takes records away. No reader ever gets those; but the client's position goes on past them, so two spans
of which one begins where the other ends lack nothing between them, and anything else is a hole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException

from ashi.runtime.kafka.consuming.raw_batches import RawBatches, is_at_end, take_batches

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from aiokafka import AIOKafkaConsumer, TopicPartition

RecordReader = Callable[[RawBatches, int], Sequence[Any]]
"""Makes records of batches, those from an offset on. Raises ValueError where they are none."""


class Span(NamedTuple):
    """A stretch of a partition that has been read whole.

    Attributes:
        begin: the offset it was read from.
        end: the offset to read on from; it may lie behind the one after the last record.
        records: all that a reader gets of it, in order; perhaps none. Of some topics only (key, value), see
            `fetch_spans`.

    """

    begin: int
    end: int
    records: Sequence[Any]

    def joined(self, later: Span) -> Span:
        """Both as one: `later` goes on where it ends."""
        return Span(self.begin, later.end, [*self.records, *later.records])


async def fetch_spans(
    consumer: AIOKafkaConsumer,
    partitions: Collection[TopicPartition],
    *,
    wait_s: float,
    max_records: int,
    bare: Collection[str] = (),
    raw: Mapping[str, RecordReader] | None = None,
) -> dict[TopicPartition, Span]:
    """What comes next of these partitions, of all assigned if none are given; waits for it at most `wait_s` seconds.

    As the library's `getmany`, which tells of records only. Of topics in `bare` records come as (key, value): to make
    the library's record, which has eleven fields, takes most of the time that reading one does. Of those in `raw` they
    are what the topic's reader makes of the batches, several of which may exceed `max_records`, or the library's where
    there are none that it can read. Raises what `getmany` raises.
    """
    fetcher, subscriptions, loop = consumer._fetcher, consumer._subscription, asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    consumer._coordinator.check_errors()
    with subscriptions.fetch_context():
        while True:
            if consumer._closed or fetcher._closed:
                raise ConsumerStoppedError
            if subscriptions.reassignment_in_progress:
                await subscriptions.wait_for_assignment()
            # Without a time to wait nothing else runs until it returns: no seek comes between the two positions.
            begins = _positions(consumer)
            for at, result in fetcher._records.items():
                if at.topic in bare and (unread := getattr(result, "_partition_records", None)) is not None:
                    unread._consumer_record = _key_and_value
            fetched: dict[TopicPartition, Sequence[Any]] = {}
            if raw:
                fetched = _take_raw(fetcher, raw, partitions, begins, max_records)
            if not fetched:
                fetched = await fetcher.fetched_records(partitions, timeout=0, max_records=max_records)
            ends = _positions(consumer)
            spans = {
                at: Span(begin, ends[at], fetched.get(at, ()))
                for at, begin in begins.items()
                if ends.get(at, begin) > begin
            }
            left_s = deadline - loop.time()
            if spans or left_s <= 0:
                return spans
            waiter = fetcher._create_fetch_waiter()
            done, _ = await asyncio.wait([waiter], timeout=left_s)
            if not done:
                waiter.cancel()
                return {}
            waiter.result()  # an error of authorization


def _take_raw(
    fetcher: Any,
    raw: Mapping[str, RecordReader],
    partitions: Collection[TopicPartition],
    begins: Mapping[TopicPartition, int],
    max_records: int,
) -> dict[TopicPartition, Sequence[Any]]:
    """What partitions of such topics have been sent, taken as `FetchResult.getall` does; nothing where none has."""
    taken: dict[TopicPartition, Sequence[Any]] = {}
    count = 0
    for at, result in list(fetcher._records.items()):
        if count >= max_records:
            break
        if at.topic not in raw or (partitions and at not in partitions) or type(result) is not FetchResult:
            continue
        if at not in begins or not result.has_more() or not result.check_assignment(at):
            continue
        batches = take_batches(result._partition_records, max_records - count)
        if batches is None:
            continue
        result._update_position()
        if is_at_end(result._partition_records):
            result._partition_records = None
            del fetcher._records[at]
            fetcher._notify(fetcher._wait_consume_future)
        try:
            taken[at] = raw[at.topic](batches, begins[at])
        except ValueError as error:
            raise CorruptRecordException(f"{at.topic}/{at.partition} from offset {begins[at]} on: {error}") from error
        count += batches.max_records
    return taken


def _key_and_value(_: TopicPartition, record: Any) -> tuple[bytes | None, bytes | None]:
    """Stands in for the library's function that makes a record out of what was parsed."""
    return record.key, record.value


def _positions(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
    """Where the partitions stand that are assigned and have a position."""
    subscription = consumer._subscription.subscription
    assignment = subscription.assignment if subscription is not None else None
    if assignment is None:
        return {}
    states = ((at, assignment.state_value(at)) for at in assignment.tps)
    return {at: state.position for at, state in states if state is not None and state.has_valid_position}
