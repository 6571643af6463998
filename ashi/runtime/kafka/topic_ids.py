"""A topic's id (KIP-516) and the epochs of its leaders: request Metadata v12, which the client library lacks."""

from __future__ import annotations

import uuid
from typing import Any, NamedTuple

from aiokafka.errors import KafkaConnectionError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields


class Identity(NamedTuple):
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

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[_MetadataStruct]) -> _MetadataStruct:
        return request_struct_class([(bytes(16), self._topic, {})], False, False, {})


async def identify(client: Any, topic: str) -> Identity:
    """Ask any broker. Raises a KafkaError of the library when it does not answer, or has no such topic."""
    node = client.get_random_node()
    if node is None:
        raise KafkaConnectionError("no broker is known")
    try:
        response = await client.send(node, _MetadataRequest(topic))
    except NotImplementedError:  # its way to say that the broker has no version of the request that is known here
        return Identity(None, {})
    ((code, _, topic_id, _, partitions, _, _),) = response.topics
    if code:
        raise for_code(code)(f"topic {topic}")
    epochs = {entry[1]: entry[3] for entry in partitions}
    return Identity(str(uuid.UUID(bytes=topic_id)), epochs)
