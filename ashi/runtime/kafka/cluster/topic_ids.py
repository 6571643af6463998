"""A topic's id (KIP-516) and the epochs of its leaders: request Metadata v12, which the client library lacks."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.errors import KafkaConnectionError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

if TYPE_CHECKING:
    from collections.abc import Sequence


class TopicIdentity(NamedTuple):
    """What a broker says of a topic.

    Attributes:
        topic_id: None from a broker that knows of none (before Kafka 3.0).
        leader_epochs: of each partition; they grow with each election.

    """

    topic_id: str | None
    leader_epochs: dict[int, int]


class _Uuid:
    """Sixteen bytes."""

    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, data: Any) -> bytes:
        return bytes(data.read(16))

    def repr(self, value: bytes) -> str:
        return value.hex()


class _MetadataResponse(Response):  # type: ignore[misc]  # the library is not typed
    """MetadataResponse.json of Apache Kafka, version 12."""

    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid()),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _MetadataStruct(RequestStruct):  # type: ignore[misc]  # the library is not typed
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid()), ("name", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataStruct]):  # type: ignore[misc]  # the library is not typed
    API_KEY = 3

    def __init__(self, *topics: str, with_operations: bool = False) -> None:
        self._topics = topics
        self._with_operations = with_operations

    def build(self, request_struct_class: type[_MetadataStruct]) -> _MetadataStruct:
        topics: list[tuple[bytes, str, dict[int, bytes]]] = [(bytes(16), topic, {}) for topic in self._topics]
        return request_struct_class(topics, False, self._with_operations, {})


async def identify(client: Any, topic: str) -> TopicIdentity:
    """Ask any broker. Raises a KafkaError of the library when it does not answer, or has no such topic."""
    response = await _ask(client, _MetadataRequest(topic))
    if response is None:
        return TopicIdentity(None, {})
    ((code, _, topic_id, _, partitions, _, _),) = response.topics
    if code:
        raise for_code(code)(topic)
    epochs = {entry[1]: entry[3] for entry in partitions}
    return TopicIdentity(str(uuid.UUID(bytes=topic_id)), epochs)


async def permitted_operations(client: Any, topics: Sequence[str]) -> dict[str, tuple[int, int]] | None:
    """Of each topic Kafka's error code, and a bit for each operation that this user is permitted (KIP-430).

    None of a broker before Kafka 3.0. Raises a KafkaError of the library when no broker answers.
    """
    response = await _ask(client, _MetadataRequest(*topics, with_operations=True))
    if response is None:
        return None
    return {topic: (code, operations) for code, topic, _, _, _, operations, _ in response.topics}


async def _ask(client: Any, request: _MetadataRequest) -> Any:
    """The answer of any broker; None of one that has no version of the request that is known here."""
    node = client.get_random_node()
    if node is None:
        raise KafkaConnectionError("no broker is known")
    try:
        return await client.send(node, request)
    except NotImplementedError:  # the library's way to say so
        return None
