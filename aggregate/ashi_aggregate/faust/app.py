"""The Faust application `ashi-aggregate`: one agent over chunks of `trades`, one table of rows per timeframe."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import faust
import mode

from ashi.contracts.errors import AshiError, BrokerError, StateError
from ashi.contracts.topics import (
    AGGREGATE_APP,
    CANDLES_LIVE,
    MARKERS_TABLE,
    MAX_CHANGELOG_RECORD_BYTES,
    TRADES,
    changelog_topic,
    table_name,
)
from ashi.runtime.kafka.cluster.log_identity import Fingerprint, LogProbe, Standing
from ashi.runtime.kafka.cluster.topic_ids import TopicIdentity
from ashi.runtime.kafka.connections.background import raise_if_dead
from ashi.runtime.kafka.connections.clients import METADATA_AGE_MS, compression_of, security_options
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.kafka.producing.latest_batches import LatestBatches
from ashi.runtime.kafka.producing.record_batches import OutgoingRecord
from ashi.runtime.logs import get_weather_logger
from ashi.runtime.settings import Settings
from ashi_aggregate.epoch import Epoch, check_epoch
from ashi_aggregate.faust.membership import PromptTableManager
from ashi_aggregate.faust.table import FAUST_LOGGER, RowTable
from ashi_aggregate.faust.transport import ChunkSchema
from ashi_aggregate.fencing import SessionGuard, since_boot_s
from ashi_aggregate.held_back import HeldBack
from ashi_aggregate.live import LiveCandles
from ashi_aggregate.log_check import ALL_EVERY_S, IDENTITY_EVERY_S
from ashi_aggregate.partition import PartitionOffsets
from ashi_aggregate.pipeline import Pipeline
from ashi_aggregate.protocols import Acknowledged

PUT_OFF = 10
"""At the end of a minute, which has better things to do, a checkpoint waits as many times for a part of its interval:
so it is put off by another one at most."""
RECORDS_PER_CHUNK = 32_000
"""A worker that catches up takes in so many at once, and twice as many where symbols are many (`ChunkSize`). What a
symbol in a chunk costs is as much as thirty of its trades, and of thousands of symbols 8,000 records bring a few each.
One that has caught up gets what has just come."""
FETCH_BYTES = 4 * 1024 * 1024
CHUNKS_BUFFERED = 6
REQUEST_TIMEOUT_S = 60.0
TAKE_UP_REQUESTS = 5
"""For so many times as long as a request may take, and so a session, a rebalance may stand still."""
HEARTBEAT_S = 0.25
"""By a heartbeat a member hears that the group rebalances; the others, which have heard it, have stopped until then."""
CANONICAL_URL = f"http://{AGGREGATE_APP}"
"""A member's address within its assignment, for a web server that there is not. Faust takes the machine's name, and
refuses an assignment with another: so a static member could not go on with its own on another machine."""


_weather = get_weather_logger(__name__)


class AggregateApp(faust.App):  # type: ignore[misc]  # Faust is not typed
    """The application; it is also the log that the pipeline reads and writes."""

    logger = FAUST_LOGGER
    pipeline: Pipeline
    settings: Settings
    epoch: Epoch
    probe: LogProbe
    latest: LatestBatches
    changelogs: Mapping[str, RowTable]
    """The tables by the topic that their rows are written to."""
    _epoch_checked: asyncio.Task[None] | None = None

    async def partitions_of(self, topic: str) -> int:
        """How many partitions a topic has."""
        count: int = await self.producer.batches.partitions_of(topic)
        return count

    async def send(self, topic: str, partition: int, records: Sequence[OutgoingRecord]) -> Awaitable[Acknowledged]:
        """Hand over records; what is returned completes when all of them have been acknowledged."""
        future: Awaitable[Acknowledged] = await self.producer.batches.send(topic, partition, records)
        return future

    async def rewind(self, partition: int, offset: int) -> None:
        """Read `trades` of `partition` again from `offset`."""
        await self.consumer.rewind(partition, offset)

    def mark_durable(self, partition: int, end: int) -> None:
        """Let offsets up to `end` (exclusive) be committed."""
        self.consumer.mark_durable(partition, end)

    def end_of(self, partition: int) -> int | None:
        """The end of `trades` in `partition` as of the last fetch, or None when it is not known."""
        end: int | None = self.consumer.end_of(partition)
        return end

    async def ask_ends(self, partitions: Iterable[int]) -> Mapping[int, int]:
        """The ends of `trades` in `partitions`, asked for now; without those that nobody tells soon."""
        ends: Mapping[int, int] = await self.consumer.ask_ends(partitions)
        return ends

    async def resume(self, partitions: Mapping[int, PartitionOffsets]) -> dict[int, int]:
        """Where to read each partition on from; called by the transport. An error ends the worker."""
        try:
            if self._epoch_checked is not None:
                await asyncio.shield(self._epoch_checked)
            return await self.pipeline.resume(partitions)
        except AshiError as error:
            await self.crash(error)
            raise

    def known_records(self, partition: int) -> Sequence[Fingerprint]:
        """Records that the state has read and that must stand before those read next; called by the transport."""
        return self.pipeline.known_records(partition)

    async def is_continued(self, partition: int, begin: int, known: Sequence[Fingerprint]) -> bool:
        """Whether the log goes on at `begin`, and the records known still stand in it; called by the transport.

        False also when Kafka does not say so now: then it is asked again. An error ends the worker when it does not.
        """
        try:
            await self.pipeline.check_continued(partition, begin, known)
        except BrokerError as error:
            _weather.warning("cannot see whether the log was cut, trying again", partition=partition, error=str(error))
            return False
        except StateError as error:
            await self.crash(error)
            return False
        return True

    async def identity(self) -> TopicIdentity:
        """Which topic `trades` is, and the epochs of its leaders. Raises BrokerError."""
        return await self.probe.identity()

    async def standing(self, offsets: Mapping[int, Sequence[int]]) -> Mapping[int, Standing]:
        """What stands now at these offsets of partitions of `trades`. Raises BrokerError."""
        return await self.probe.standing(offsets)

    @property
    def take_up_bound_s(self) -> float:
        """For how long a start or a rebalance may go on without restoring anything."""
        bound_s: float = TAKE_UP_REQUESTS * self.conf.broker_request_timeout
        return bound_s

    def raise_if_dead(self) -> None:
        """Raise what a part of the clients has died of, which Faust does not notice, or only when it reads."""
        self.consumer.instance_guard.raise_if_taken()
        raise_if_dead(self.consumer.client)
        raise_if_dead(self.producer._producer)

    async def on_stop(self) -> None:
        """Disconnect what Faust does not know of."""
        if self._epoch_checked is not None:
            self._epoch_checked.cancel()
        await super().on_stop()
        await self.probe.close()
        await self.latest.close()

    async def check_log(self, *, everything: bool) -> None:
        """Look whether `trades` is still the log that was read. An error ends the worker when it is not."""
        try:
            await self.pipeline.check_log(everything=everything)
        except BrokerError as error:
            _weather.warning("cannot see whether trades is still the same log, trying again", error=str(error))
        except StateError as error:
            await self.crash(error)

    async def release(self) -> None:
        """Let go of all partitions; called by the transport."""
        await self.pipeline.release()

    def begin_epoch_check(self) -> None:
        """Look whether the state has been reconfigured since this worker started; called when it has joined the group.

        From then on it cannot be, as long as this worker is in the group. What is found is told before partitions are
        taken up; changelogs are read meanwhile.
        """
        self._epoch_checked = asyncio.create_task(self.check_epoch())
        self._epoch_checked.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def check_epoch(self) -> None:
        """Raise StateError if the state has been reconfigured since this worker started."""
        await check_epoch(self.settings, self.epoch)

    async def settle(self) -> None:
        """Make durable what has been folded, before partitions are given away; called by the transport."""
        await self.pipeline.settle()


def make_app(
    settings: Settings, epoch: Epoch, partitions: int, session_guard: SessionGuard, datadir: Path
) -> AggregateApp:
    """Build the application for a topic `trades` of so many partitions. It is not started."""
    session_s = settings.session_timeout_us / 1e6
    app = AggregateApp(
        AGGREGATE_APP,
        broker=[f"ashi-batch://{address.strip()}" for address in settings.kafka_bootstrap.split(",")],
        broker_credentials=_credentials(settings),
        Table=RowTable,
        TableManager=PromptTableManager,
        store="memory://",
        datadir=datadir,  # Faust makes folders in it; nothing is put there
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        topic_partitions=partitions,
        table_standby_replicas=0,
        processing_guarantee="at_least_once",
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=FETCH_BYTES,
        consumer_metadata_max_age_ms=METADATA_AGE_MS,
        broker_max_poll_records=RECORDS_PER_CHUNK,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=HEARTBEAT_S,
        consumer_group_instance_id=settings.instance_id,
        canonical_url=CANONICAL_URL,
        broker_request_timeout=max(REQUEST_TIMEOUT_S, session_s + 1),
        broker_commit_interval=1.0,
        stream_wait_empty=True,
        stream_buffer_maxsize=CHUNKS_BUFFERED,
        stream_recovery_delay=0.0,
        producer_acks=-1,
        producer_compression_type=compression_of(settings),
        producer_linger=0.0,
        producer_max_batch_size=512 * 1024,
        producer_max_request_size=MAX_CHANGELOG_RECORD_BYTES,
        producer_request_timeout=REQUEST_TIMEOUT_S,
        producer_threaded=False,
        logging_config=None,
    )
    app.settings, app.epoch, app.probe = settings, epoch, LogProbe(settings, TRADES)
    app.latest = LatestBatches(settings, CANDLES_LIVE)
    tables = [
        app.Table(table_name(timeframe), partitions=partitions, key_type=bytes, value_type=bytes)
        for timeframe in settings.timeframes
    ]
    markers = app.Table(MARKERS_TABLE, partitions=partitions, key_type=bytes, value_type=bytes)
    app.changelogs = {changelog_topic(table.name): table for table in (*tables, markers)}
    live = None
    if settings.live_interval_us is not None:
        live = LiveCandles(app, app.latest, session_guard, interval_us=settings.live_interval_us)
    app.pipeline = Pipeline(
        timeframes=settings.timeframes,
        rules=epoch.rules(),
        quiet_close=settings.quiet_close,
        partitions=partitions,
        tables=tables,
        markers=markers,
        kafka=app,
        session_guard=session_guard,
        live=live,
        begin=epoch.begin,
        whole_from=epoch.whole_from,
        named=partial(kafka_name, settings),
    )
    topic = app.topic(TRADES, schema=ChunkSchema(), partitions=partitions)

    async def aggregate(stream: Any) -> None:
        async for event in stream.noack().events():
            await app.pipeline.on_chunk(event.value, partial(stream.ack, event))

    # Without this supervisor an agent that fails is restarted, or dies and leaves a worker that looks alive.
    app.agent(topic, name="aggregate", supervisor_strategy=mode.CrashingSupervisor)(aggregate)

    async def checkpoints() -> None:
        interval_s = settings.checkpoint_interval_us / 1e6
        while not app.should_stop:
            await asyncio.sleep(interval_s)
            for _ in range(PUT_OFF):
                if not app.pipeline.is_closing:
                    break
                await asyncio.sleep(interval_s / PUT_OFF)
            await app.pipeline.checkpoint()

    async def progress() -> None:
        again_s = 0.0
        while not app.should_stop:
            await asyncio.sleep(again_s)
            again_s = await app.pipeline.tell_progress()

    async def preparation() -> None:
        again_s = 0.0
        while not app.should_stop and again_s < math.inf:
            await asyncio.sleep(again_s)
            again_s = await app.pipeline.prepare_candles()

    async def log_checks() -> None:
        rounds, held_back = 0, HeldBack()
        while not app.should_stop:
            await asyncio.sleep(IDENTITY_EVERY_S)
            rounds += 1
            held_back.look(app.consumer.known_ends(), since_boot_s())
            await app.pipeline.look_at_lag()
            await app.check_log(everything=rounds % round(ALL_EVERY_S / IDENTITY_EVERY_S) == 0)

    app.task(checkpoints)
    if live is not None:
        app.task(progress)
    if settings.quiet_close:
        app.task(preparation)
    app.task(log_checks)
    return app


def _credentials(settings: Settings) -> Any:
    options = security_options(settings)
    context = options.get("ssl_context")
    if "sasl_oauth_token_provider" in options:
        return faust.OAuthCredentials(oauth_cb=options["sasl_oauth_token_provider"], ssl_context=context)
    if "sasl_mechanism" in options:
        return faust.SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            mechanism=options["sasl_mechanism"],
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None
