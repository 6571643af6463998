"""Whether this user may do what its stage does: asked of Kafka before anything is begun, which tells every right.

Met one by one later, a right that is missing would look like a topic without messages, or like a broker that is away.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

from aiokafka.client import CoordinationType
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.admin import DescribeGroupsRequest_v3, DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct

from ashi.contracts.access import Operation
from ashi.contracts.errors import BrokerError, BrokerUnreachableError, NotPermittedError
from ashi.runtime.kafka.cluster.offsets import ask_coordinator
from ashi.runtime.kafka.cluster.topic_ids import permitted_operations
from ashi.runtime.kafka.cluster.topics import refuse_missing
from ashi.runtime.kafka.connections.clients import admin_client, partitions_of_topics
from ashi.runtime.kafka.connections.errors import GRANT, as_broker_error, leaves, require_brokers, who_asks
from ashi.runtime.kafka.connections.naming import kafka_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiokafka.admin import AIOKafkaAdminClient

    from ashi.contracts.access import Access
    from ashi.runtime.settings import Settings

Right: TypeAlias = tuple[str, str, Operation | None]
"""What it is a right on, its name, and the operation; without one where there is no such topic."""
_UNKNOWN: Final = -(2**31)
"""Kafka's number where it was not asked, or does not know."""
_MISSING: Final = UnknownTopicOrPartitionError.errno
_NOT_PERMITTED: Final = TopicAuthorizationFailedError.errno
_GROUP_NOT_PERMITTED: Final = GroupAuthorizationFailedError.errno
AGAIN_BOUND_S: Final = 5.0
"""How long a stage that has failed asks Kafka which rights it lacks, seconds."""


async def require_access(settings: Settings, access: Access) -> None:
    """Refuse to go on without the topics, the rights and all brokers of a stage.

    Raises BrokerError that names every topic that is missing, NotPermittedError every right, BrokerUnreachableError a
    broker: a part of the clients would try one whose advertised address is wrong for ever, and not say which.
    """
    async with admin_client(settings) as client:
        lacking = await _lacking(client, access)
        await require_brokers(client._client)
    refuse_missing(settings, [topic for _, topic, operation in lacking if operation is None])
    if lacking:
        rights = ", ".join(
            f"{operation} on {kind.replace('_', ' ')} {kafka_name(settings, name)}" for kind, name, operation in lacking
        )
        raise NotPermittedError(
            f"Kafka at {settings.kafka_bootstrap} does not permit {who_asks(settings)}: {rights}. {GRANT}; a topic "
            "that cannot be described may also be missing: create all with `ashi topics create`"
        )


async def rights_lacking(settings: Settings, access: Access) -> list[Right]:
    """The rights of a stage that this user lacks; of a topic that is missing one without an operation.

    Raises BrokerError when Kafka cannot be reached.
    """
    async with admin_client(settings) as client:
        return await _lacking(client, access)


async def _lacking(client: AIOKafkaAdminClient, access: Access) -> list[Right]:
    lacking = await _lacking_on_topics(client, access)
    if access.group is not None and not await _may_read_group(client, access.group):
        lacking.append(("group", access.group, Operation.READ))
    if access.transactional_id is not None and not await _may_write_under(client, access.transactional_id):
        lacking.append(("transactional_id", access.transactional_id, Operation.WRITE))
    return lacking


@asynccontextmanager
async def rights_named(settings: Settings, access: Access) -> AsyncIterator[None]:
    """Around what a stage does: where Kafka then refuses something, it is asked again which rights are missing.

    One may be taken away after `require_access`, and a broker itself knows of that a moment later. The error that comes
    of it names no operation, and at times it only says that there is no such topic. Raises NotPermittedError that names
    every right, else whatever is raised inside.
    """
    try:
        yield
    except Exception as error:
        if any(_may_be_a_right(leaf, settings) for leaf in leaves(error)):
            try:
                async with asyncio.timeout(AGAIN_BOUND_S):
                    await require_access(settings, access)
            except NotPermittedError as lacking:
                raise lacking from error
            except (BrokerError, TimeoutError):
                pass  # what was there first is told
        raise


def _may_be_a_right(error: BaseException, settings: Settings) -> bool:
    told = error if isinstance(error, BrokerError) else as_broker_error(error, settings)
    return told is not None and not isinstance(told, BrokerUnreachableError)


async def _lacking_on_topics(client: AIOKafkaAdminClient, access: Access) -> list[Right]:
    """The rights on topics that are not there; the operation is None where the topic is missing."""
    found = await permitted_operations(client._client, list(access.topics))
    if found is None:  # Kafka does not say
        there = await partitions_of_topics(client)
        found = {topic: (0 if topic in there else _MISSING, _UNKNOWN) for topic in access.topics}
    lacking: list[Right] = []
    for kind, topic, operation in access.rights():
        if kind != "topic":
            continue
        code, permitted = found[topic]
        if code and code != _NOT_PERMITTED:
            lacking.append((kind, topic, None))
        elif code or (permitted != _UNKNOWN and not permitted & (1 << operation.value)):
            lacking.append((kind, topic, operation))
    return list(dict.fromkeys(lacking))


async def _may_read_group(client: AIOKafkaAdminClient, group: str) -> bool:
    async def ask() -> tuple[int, int]:
        coordinator = await client.find_coordinator(group)
        response = await client._send_request_to_node(coordinator, _DescribeGroupRequest(group))
        ((code, *_, permitted),) = response.groups
        return code, permitted

    try:
        code, permitted = await ask_coordinator(ask)
    except GroupAuthorizationFailedError:
        return False
    except NotImplementedError:  # the library's way to say that the broker has no such version of the request
        return True
    if code == _GROUP_NOT_PERMITTED:
        return False
    return code != 0 or permitted == _UNKNOWN or bool(permitted & (1 << Operation.READ.value))


async def _may_write_under(client: AIOKafkaAdminClient, transactional_id: str) -> bool:
    """Whoever may write under an id may ask who coordinates it. Kafka does not tell it more exactly."""

    async def ask() -> None:
        await client._client.coordinator_lookup(CoordinationType.TRANSACTION, transactional_id)

    try:
        await ask_coordinator(ask)
    except TransactionalIdAuthorizationFailed:
        return False
    return True


class _DescribeGroupStruct(RequestStruct):  # type: ignore[misc]  # the library is not typed
    """DescribeGroupsRequest.json, version 3 (KIP-430); the library's own takes the answer for one of version 2."""

    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = DescribeGroupsResponse_v3
    SCHEMA = DescribeGroupsRequest_v3.SCHEMA


class _DescribeGroupRequest(Request[_DescribeGroupStruct]):  # type: ignore[misc]  # the library is not typed
    API_KEY = 15

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: type[_DescribeGroupStruct]) -> _DescribeGroupStruct:
        return request_struct_class([self._group], True)
