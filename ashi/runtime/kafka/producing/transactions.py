"""Messages and how far their writer has read, written together: all of a step or nothing, by one process at a time.

For a writer whose steps are few and must neither be repeated nor lost, as signals (candles are versioned instead, see
docs/decisions/0001-versions-instead-of-transactions.md). Kafka knows a writer by its transactional id. Whoever starts
last under an id has it: what the one before left open is aborted, and its next step is refused.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import InvalidProducerEpoch, ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from ashi.contracts.errors import BrokerUnreachableError, InstanceTakenError
from ashi.runtime.kafka.connections.clients import make_producer
from ashi.runtime.kafka.connections.errors import as_broker_error, client_errors, not_taken
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.library_logs import StepFilter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ashi.runtime.kafka.producing.dead_letters import Headers
    from ashi.runtime.settings import Settings

TIMEOUT_S: Final = 15.0
"""Kafka aborts a step that was begun and not ended by then. So long, at most, a writer that was killed within a step
holds back the readers of the partitions that it was writing to, if it is not started again before."""

_SENDER_LOG: Final = logging.getLogger("aiokafka.producer.sender")


class Message(NamedTuple):
    """A message of the public contract."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers


class TransactionalWriter:
    """Writes steps, each whole or not at all, and commits what was read for them in a group that nobody is in."""

    def __init__(self, settings: Settings, writer_id: str, *, whose: str) -> None:
        """`writer_id`: the transactional id, and the group. `whose` says for people who writes: `strategy ma_cross`."""
        self._settings = settings
        self._id = writer_id
        self._whose = whose
        self._producer = make_producer(
            settings, transactional_id=writer_id, transaction_timeout_ms=int(TIMEOUT_S * 1_000)
        )
        self._warnings = StepFilter()

    async def start(self) -> None:
        """Connect, and shut out whoever wrote under the id before; what was open of it is aborted.

        Raises BrokerError.
        """
        _SENDER_LOG.addFilter(self._warnings)
        await self._producer.start()

    async def write(
        self, messages: Sequence[Message], offsets: Mapping[tuple[str, int], tuple[int, str]] | None = None
    ) -> None:
        """Write a step; when this returns it stands there, for readers of committed records all at once.

        `offsets`: by topic and partition the offset of the next record to be read, and a note of up to 4,096 bytes.
        While Kafka is away this waits. After an error, or when it was cancelled, nothing more can be written by this
        object, and whether the step stands there only Kafka knows.

        Raises InstanceTakenError when another process writes under the id, BrokerUnreachableError when Kafka was away
        for so long that it has aborted the step, and BrokerError.
        """
        began_s = self._warnings.began_s = time.monotonic()
        producer = self._producer
        committed = {TopicPartition(*at): OffsetAndMetadata(*place) for at, place in (offsets or {}).items()}
        topic = messages[0].topic if messages else next((at[0] for at in offsets or {}), "")
        try:
            async with client_errors(self._settings, producer.client):
                await producer.begin_transaction()
                _once(producer._txn_manager.wait_for_transaction_end())
                sent = [
                    _once(await producer.send(message.topic, message.value, message.key, headers=message.headers))
                    for message in messages
                ]
                for batches in producer._message_accumulator._batches.values():
                    for batch in batches:
                        _once(
                            batch._drain_waiter
                        )  # which the library fails too, and looks at only where room is lacking
                if committed:
                    await producer.send_offsets_to_transaction(committed, self._id)
                if sent:
                    await asyncio.wait(sent)
                for delivered in sent:
                    delivered.result()
                await producer.commit_transaction()
        except (ProducerFenced, InvalidProducerEpoch) as error:
            if time.monotonic() - began_s >= TIMEOUT_S:
                raise BrokerUnreachableError(
                    f"Kafka at {self._settings.kafka_bootstrap} was away for longer than a step may take "
                    f"({TIMEOUT_S:g} s) and has aborted it"
                ) from error
            raise InstanceTakenError(
                f"another process runs {self._whose} (transactional id {kafka_name(self._settings, self._id)!r}) and "
                "was started later, so this one ends; run one of them only"
            ) from error
        except Exception as error:
            if as_broker_error(error, self._settings) is not None or isinstance(error, BrokerUnreachableError):
                raise
            raise not_taken(topic, error, self._settings) from error
        finally:
            self._warnings.began_s = None

    async def close(self) -> None:
        """Disconnect. May be called at any time, and again."""
        _SENDER_LOG.removeFilter(self._warnings)
        await self._producer.stop()


def _once(future: asyncio.Future[Any]) -> asyncio.Future[Any]:
    """One of several that fail of the same: what is raised is raised once, and the others are not told by asyncio."""
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future
