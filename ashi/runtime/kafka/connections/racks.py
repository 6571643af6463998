"""Reading from a copy of a partition that is near (KIP-392), and not believing it when it lacks what the leader has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import NotLeaderForPartitionError, OffsetOutOfRangeError

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

_FETCH: Final = 1


def read_near(consumer: AIOKafkaConsumer, rack: str | None) -> None:
    """Let a consumer, not yet started, read from copies in `rack`, where its brokers offer that.

    A copy that was behind when its broker came back may say that an offset is out of range which is in the log. The
    library would begin anew somewhere else then. So that is an answer by which the leader is asked, as Java's client
    does it.
    """
    if rack is None:
        return
    consumer._client_rack = rack
    client = consumer._client
    send = client.send

    async def send_and_look(node_id: int, request: Any, **options: Any) -> Any:
        response = await send(node_id, request, **options)
        if getattr(response, "API_KEY", None) == _FETCH:
            for topic, partitions in response.topics:
                for index, (number, code, *more) in enumerate(partitions):
                    leader = client.cluster.leader_for_partition(TopicPartition(topic, number))
                    if code == OffsetOutOfRangeError.errno and leader != node_id:
                        partitions[index] = (number, NotLeaderForPartitionError.errno, *more)
        return response

    client.send = send_and_look
