"""What a consumer knows of a partition without asking for it: where it stands, and what the last answer said."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, TopicPartition


class ReadingState(NamedTuple):
    """A partition that is being read.

    Attributes:
        position: the offset that is handed out next.
        end: where the log ended for readers, by the last answer to a fetch.
        answered_ms: when that answer came, in ms of the epoch.

    """

    position: int
    end: int
    answered_ms: int


def reading_state(consumer: AIOKafkaConsumer, partition: TopicPartition) -> ReadingState | None:
    """How the reading of a partition stands; None where it is not assigned, or no fetch of it has been answered yet."""
    subscription = consumer._subscription.subscription
    assignment = subscription.assignment if subscription is not None else None
    if assignment is None or partition not in assignment.tps:
        return None
    state = assignment.state_value(partition)
    if state is None or not state.has_valid_position or state.timestamp is None:
        return None
    end = state.highwater if state.lso is None or state.lso < 0 else state.lso
    return ReadingState(state.position, end, state.timestamp)
