"""More partitions for the topics that are joined by key, without a candle that is late, wrong or missing.

With the number of partitions most symbols move to another one, and the state of the workers, which counts by offsets of
partitions, is nothing to go on from. So a new one is begun (`ashi_aggregate.epoch`), and it must find everything that
open windows are made of where it will look. Hence the newest trades, since before the oldest window that is open or may
still be corrected, are appended once more, each symbol's in the order in which they stand, to the partition that it has
now. The new state begins with the first of these copies; ingest finds them as the last trades that were published, and
goes on after them.

Nobody may publish meanwhile: of one symbol, trades that come before the copies would make these late. Whether somebody
did is seen by the offsets. What has been done is written down before anything is changed, so that the command, given
again, goes on from wherever it broke off. The workers refuse to start until it has ended, as the topics of their state
are the last that get their partitions.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, cast

from ashi.contracts.errors import ContractError, StateError, UsageError
from ashi.contracts.feed import STALE_AFTER_US, FeedStatus
from ashi.contracts.records import COPY_HEADER, SINCE_HEADER, feed_status_in, time_in
from ashi.contracts.topics import FEED_STATUS, META, TRADES, state_topics, topic_specs
from ashi.contracts.trade import MAX_AHEAD_US
from ashi.runtime import wall_clock
from ashi.runtime.kafka.cluster.ends import stable_ends, written_ends
from ashi.runtime.kafka.cluster.offsets import (
    begin_offsets,
    end_offsets,
    first_append_time,
    last_append_time,
    offsets_at,
)
from ashi.runtime.kafka.cluster.topics import create_topics, grow_topics, partition_counts, require_topics
from ashi.runtime.kafka.connections.clients import assigned_consumer, make_producer, partition_of
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.kafka.consuming.records import read_at, read_between, read_topic
from ashi.runtime.kafka.producing.record_batches import OutgoingRecord, RecordBatches
from ashi.runtime.settings import Settings
from ashi_aggregate.chunk import Chunk, ChunkDecoder, LogRecord, appended_at
from ashi_aggregate.epoch import Epoch, current_epoch, differs_from
from ashi_aggregate.reconfigure import Growth, begin_epoch, refuse_running, unfinished_growth, write_growth

CLOCKS_APART_US: Final = 600_000_000
"""Clocks of venues, machines and brokers are taken to differ by less than this."""
HEARD_S: Final = 11.0
"""A feed whose worker runs says something within this time."""
TELL_EVERY: Final = 1_000_000

Tell = Callable[[str], None]


async def grow(settings: Settings, partitions: int, since_us: int | None = None, *, tell: Tell) -> None:
    """Give all topics that are joined by key so many partitions, and begin a new state. May be repeated.

    `since_us`: trades appended from then on are copied, in place of what the settings need. `tell` is given a sentence
    for each step.

    Raises UsageError when there are more partitions already, StateError while workers run, when somebody publishes, and
    when the topics are not what they must be before it; BrokerError.
    """
    await require_topics(settings, [META, TRADES])
    specs = topic_specs(partitions, settings.timeframes)
    counts, epoch = await partition_counts(settings), await current_epoch(settings)
    growth = await unfinished_growth(settings, epoch)
    _check_number(settings, counts[TRADES], partitions, growth)
    of_state = [spec for spec in specs if spec.name in state_topics(settings.timeframes)]
    if growth is None and counts[TRADES] == partitions:
        _check_grown(settings, counts, epoch, [spec.name for spec in of_state])
    else:
        await refuse_running(settings)
        _check_before(settings, counts, epoch, growth)
        await _refuse_feeds(settings, tell)
        if growth is None:
            growth = await _plan(settings, epoch, counts[TRADES], partitions, since_us)
            await write_growth(settings, growth)
        await _grow_some(settings, [spec for spec in specs if spec not in of_state], tell)
        begin = await _copy(settings, growth, tell)
        after = await begin_epoch(settings, epoch, begin, growth.whole_from)
        tell(f"epoch {after.epoch}: {after}")
    await _grow_some(settings, of_state, tell)
    tell(
        f"all topics have {partitions} partitions: set ASHI_PARTITIONS={partitions} everywhere, then start the workers"
    )


def _check_number(settings: Settings, now: int, wanted: int, growth: Growth | None) -> None:
    topic = kafka_name(settings, TRADES)
    if growth is not None and growth.partitions != wanted:
        raise UsageError(
            f"topic {topic} is being given {growth.partitions} partitions, and that was broken off: end it first, with "
            f"--partitions {growth.partitions}"
        )
    if wanted < now:
        raise UsageError(
            f"topic {topic} has {now} partitions: Kafka takes none away, so --partitions must be {now} or more"
        )


def _check_before(settings: Settings, counts: Mapping[str, int], epoch: Epoch | None, growth: Growth | None) -> None:
    """Raise StateError unless the state is one of these settings, with as many partitions as `trades` had."""
    before = counts[TRADES] if growth is None else growth.before
    if epoch is not None and (reason := differs_from(settings, epoch)):
        raise StateError(f"{reason}. Give `ashi topics grow` the settings of the state")
    for topic in state_topics(settings.timeframes):
        if counts.get(topic, before) != before:
            raise StateError(
                f"topic {kafka_name(settings, topic)} has {counts[topic]} partitions and "
                f"{kafka_name(settings, TRADES)} {before}: that was done by another command, so run "
                "`ashi aggregate reconfigure` first"
            )


def _check_grown(settings: Settings, counts: Mapping[str, int], epoch: Epoch | None, of_state: Sequence[str]) -> None:
    """Raise StateError where `trades` has the partitions, but not from here."""
    behind = [topic for topic in of_state if counts.get(topic, 0) != counts[TRADES]]
    begun_here = epoch is not None and epoch.whole_from is not None and len(epoch.begin) == counts[TRADES]
    if behind and not begun_here:
        raise StateError(
            f"topic {kafka_name(settings, TRADES)} has {counts[TRADES]} partitions already, and topic "
            f"{kafka_name(settings, behind[0])} {counts.get(behind[0], 0)}: it was given them by another command. Stop "
            "all aggregate workers, then run `ashi aggregate reconfigure`"
        )


async def _refuse_feeds(settings: Settings, tell: Tell) -> None:
    """Raise StateError while ingest workers run: they publish to the partitions that there were at their start."""
    seen = await _statuses(settings)
    now_us = wall_clock.now_us()
    young = {symbol: status for symbol, status in seen.items() if now_us - status.updated_at < STALE_AFTER_US}
    running = [symbol for symbol, status in young.items() if status.state != "down"]
    if young and not running:
        tell(f"waiting for {HEARD_S:g} s whether an ingest worker says something")
        await asyncio.sleep(HEARD_S)
        again = await _statuses(settings)
        running = [symbol for symbol, status in again.items() if symbol not in seen or status != seen[symbol]]
    if running:
        raise StateError(
            f"ingest workers run, or have been killed within the last minute: {len(running)} feeds have said "
            f"something, one of them {min(running)}. Stop them all; what is traded meanwhile they fetch when they are "
            "started again"
        )


async def _statuses(settings: Settings) -> dict[str, FeedStatus]:
    statuses: dict[str, FeedStatus] = {}
    async for record in read_topic(settings, FEED_STATUS):
        try:
            status = feed_status_in(record)
        except ContractError:
            continue  # no reader takes it; and one without a value takes away what was said
        if status.symbol not in statuses or status.updated_at >= statuses[status.symbol].updated_at:
            statuses[status.symbol] = status
    return statuses


async def _plan(settings: Settings, epoch: Epoch | None, before: int, partitions: int, since_us: int | None) -> Growth:
    """What is to be copied: what was appended since before the oldest window that is open or may be corrected."""
    if since_us is None:
        newest_us = (await last_append_time(settings, TRADES) or time.time_ns() // 1_000_000) * 1_000
        finest = min(settings.timeframes)
        reach = settings.correction_horizon_us + settings.allowed_lateness_us + finest.length_us + CLOCKS_APART_US
        oldest = min(timeframe.open_time(newest_us - reach) for timeframe in settings.timeframes)
        since_us = oldest - CLOCKS_APART_US
    first, end = await begin_offsets(settings, TRADES), await end_offsets(settings, TRADES)
    at_time = await offsets_at(settings, TRADES, since_us // 1_000)
    begun = {} if epoch is None else epoch.begin
    floor = {number: max(offset, begun.get(number, 0)) for number, offset in first.items()}
    begin = {number: max(offset, at_time[number]) for number, offset in floor.items()}
    whole_from = 0 if begin == floor else since_us + MAX_AHEAD_US
    for number, offset in begin.items():
        if offset != floor[number]:
            continue
        if epoch is not None and offset == begun.get(number) and epoch.whole_from is not None:
            whole_from = max(whole_from, epoch.whole_from)
        elif offset or number in begun:  # what is not there any more may have been appended since
            appended_ms = await first_append_time(settings, TRADES, [number])
            whole_from = max(whole_from, (appended_ms or 0) * 1_000 + MAX_AHEAD_US)
        elif end[number]:
            first_record = (await read_at(settings, TRADES, number, [0])).get(0)
            whole_from = max(whole_from, time_in(first_record.headers, SINCE_HEADER) or 0 if first_record else 0)
    return Growth(-1 if epoch is None else epoch.epoch, before, partitions, begin, end, whole_from)


async def _grow_some(settings: Settings, specs: Sequence[Any], tell: Tell) -> None:
    """Give these topics the partitions they must have, those that are missing too."""
    wanted = [spec for spec in specs if spec.name != META]
    # `trades` first: while it alone has grown everybody sees that something is under way.
    grown = await grow_topics(settings, wanted[:1]) + await grow_topics(settings, wanted[1:])
    created = await create_topics(settings, wanted)
    for name in grown + created:
        tell(f"topic {kafka_name(settings, name)} has {next(spec.partitions for spec in wanted if spec.name == name)}")


async def _copy(settings: Settings, growth: Growth, tell: Tell) -> dict[int, int]:
    """Append the copies; gives where those of each partition begin. Raises StateError when somebody else published."""
    begin = await _settled_ends(settings)
    producer = make_producer(settings)
    await producer.start()
    batches = RecordBatches(producer, settings)
    copied: Counter[int] = Counter()
    try:
        last: dict[int, Any] = {}
        async for key, records in _to_copy(settings, growth, begin):
            partition = partition_of(key, growth.partitions)
            last[partition] = await batches.send(TRADES, partition, records)
            copied[partition] += len(records)
            if copied.total() // TELL_EVERY != (copied.total() - len(records)) // TELL_EVERY:
                tell(f"{copied.total():,} trades copied")
        for sent in last.values():
            await sent
    finally:
        batches.close()
        await producer.stop()
    ends = await end_offsets(settings, TRADES)
    foreign = [number for number, end in ends.items() if end != begin[number] + copied[number]]
    if foreign:
        raise StateError(
            f"somebody has published to topic {kafka_name(settings, TRADES)} meanwhile, to partition {foreign[0]}: "
            "stop all that does (ingest workers, replays, programs of yours), then give the command again: it goes on"
        )
    tell(f"{copied.total():,} trades copied to where their symbols are now")
    return begin


async def _settled_ends(settings: Settings) -> dict[int, int]:
    """The end of each partition of `trades`. Raises StateError when a transaction is open in one."""
    async with assigned_consumer(settings, TRADES) as (consumer, assigned):
        stable, written = await stable_ends(consumer, assigned), await written_ends(consumer, assigned)
    for at, end in stable.items():
        if written[at] != end:
            raise StateError(
                f"a transaction is open in {kafka_name(settings, TRADES)}/{at.partition} from offset {end} on: end the "
                "producer that writes it, or wait for its `transaction.timeout.ms`, then give the command again"
            )
    return {at.partition: end for at, end in stable.items()}


async def _to_copy(
    settings: Settings, growth: Growth, end: Mapping[int, int]
) -> AsyncIterator[tuple[bytes, list[OutgoingRecord]]]:
    """What is copied, of each symbol in the order of the log: its key, and records of it.

    First what stood there when the growth began; then, where it was broken off and somebody has published since, what
    went to the old partitions, and what went to the new ones.
    """
    since = {number: growth.end.get(number, 0) for number in end}
    old, new = ChunkDecoder(growth.before), ChunkDecoder(growth.partitions)

    def is_home(record: LogRecord, partition: int) -> bool:
        return partition_of(record.key or b"", growth.before) == partition

    async for found in _trades(settings, old, growth.begin, growth.end, is_home):
        yield found
    async for found in _trades(settings, old, since, end, lambda *at: is_home(*at) and not _is_copy(at[0])):
        yield found
    async for found in _trades(settings, new, since, end, lambda *at: not is_home(*at) and not _is_copy(at[0])):
        yield found


async def _trades(
    settings: Settings,
    decoder: ChunkDecoder,
    begin: Mapping[int, int],
    end: Mapping[int, int],
    wanted: Callable[[LogRecord, int], bool],
) -> AsyncIterator[tuple[bytes, list[OutgoingRecord]]]:
    """The wanted records of a range that count as trades. What does not count has been told by whoever read it."""
    async for partition, records in read_between(settings, TRADES, begin, end):
        chosen = [record for record in records if wanted(record, partition)]
        if not chosen:
            continue
        by_symbol, _ = decoder.decode(Chunk(partition, chosen[0].offset, chosen[-1].offset + 1, chosen))
        for trades in by_symbol.values():
            yield trades.key, [_copy_of(record) for record in trades.records]


def _is_copy(record: LogRecord) -> bool:
    return any(name == COPY_HEADER for name, _ in record.headers)


def _copy_of(record: LogRecord) -> OutgoingRecord:
    headers = [header for header in record.headers if header[0] != COPY_HEADER]
    # A header without a value is none that the library could not send, only none that it declares.
    kept = cast("list[tuple[str, bytes]]", headers)
    return record.key, record.value, [*kept, (COPY_HEADER, str(appended_at(record)).encode())]
