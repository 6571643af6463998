"""The one place where a name of Ashi becomes a name in Kafka, and back: `ASHI_TOPIC_PREFIX`.

All of Ashi, the client library and Faust among it, knows topics and groups by the names of `ashi.contracts.topics`.
With a prefix they get another name in each request on its way out, and their own in each answer before anybody looks at
it, as a proxy for many tenants does it. What is not of the prefix is dropped from answers: it is not there. Without a
prefix connections are left as the library makes them.

In the requests of groups topics stand within bytes that only the members read, and the broker too: committed offsets of
topics to which no member subscribes expire.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.protocol.group import MemberAssignment, ProtocolMetadata
from aiokafka.protocol.types import Array, Schema

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiokafka.client import AIOKafkaClient

    from ashi.runtime.settings import Settings

    _Fields = tuple[tuple[str, str], ...]


def kafka_name(settings: Settings, name: str) -> str:
    """What a topic or group of Ashi is called in Kafka: for people, who look for it there."""
    return settings.topic_prefix + name


def use_prefix(client: AIOKafkaClient, prefix: str) -> None:
    """Let a client, not yet started, find its topics and groups under names that begin with `prefix`."""
    if not prefix:
        return
    connect = client._get_conn

    async def connect_and_name(*arguments: Any, **options: Any) -> Any:
        connection = await connect(*arguments, **options)
        if connection is not None and not isinstance(connection.send, _Send):
            connection.send = _Send(connection.send, prefix)
        return connection

    client._get_conn = connect_and_name


class _Send:
    """A connection's `send`, with the names changed."""

    def __init__(self, send: Callable[..., Any], prefix: str) -> None:
        self._send = send
        self._prefix = prefix

    def __call__(self, request: Any, **options: Any) -> Any:
        return self._send(_Prefixed(request, self._prefix), **options)


class _Prefixed(NamedTuple):
    """A request of the library, as a connection prepares it for the version that the broker knows."""

    request: Any
    prefix: str

    def prepare(self, versions: Any) -> Any:
        """The request as it goes out. Raises KeyError for one whose names are not known here."""
        struct = self.request.prepare(versions)
        of_request, _ = _NAMES[struct.API_KEY]
        _rename_fields(struct, of_request, self.prefix, outward=True)
        struct.RESPONSE_TYPE = _Answer(struct.RESPONSE_TYPE, self.prefix)
        return struct


class _Answer(NamedTuple):
    """Reads an answer, as the type does that is read."""

    type: Any
    prefix: str

    def decode(self, data: Any) -> Any:
        struct = self.type.decode(data)
        _, of_answer = _NAMES[struct.API_KEY]
        _rename_fields(struct, of_answer, self.prefix, outward=False)
        return struct


class _ForeignError(Exception):
    """The name is not of this prefix."""


_TOPIC: Final = "topic"
_GROUP: Final = "group"
_SUBSCRIPTION: Final = "subscription"
_ASSIGNMENT: Final = "assignment"

_TOPICS: Final = (("topic", _TOPIC),)
_TYPE: Final = "resource_type"
_RESOURCES: Final = (("resource_name", _TOPIC),)
_IN_GROUP: Final = (("group", _GROUP),)
_OF_WRITER: Final = (("transactional_id", _GROUP),)
"""Who writes transactions has an id, which is named as a group is; other producers have none."""
_OF_GROUP: Final = (("consumer_group", _GROUP), ("topic", _TOPIC))
_MEMBERS: Final = (("group", _GROUP), ("member_metadata", _SUBSCRIPTION), ("member_assignment", _ASSIGNMENT))
_NAMES: Final[Mapping[int, tuple[_Fields, _Fields]]] = {
    0: ((*_OF_WRITER, ("topic", _TOPIC)), _TOPICS),  # Produce
    1: (_TOPICS, (("topics", _TOPIC),)),  # Fetch
    2: (_TOPICS, _TOPICS),  # ListOffsets
    3: ((("topics", _TOPIC), ("name", _TOPIC)), (("topic", _TOPIC), ("name", _TOPIC))),  # Metadata
    8: (_OF_GROUP, _TOPICS),  # OffsetCommit
    9: (_OF_GROUP, _TOPICS),  # OffsetFetch
    10: ((("consumer_group", _GROUP), ("coordinator_key", _GROUP)), ()),  # FindCoordinator
    11: ((("group", _GROUP), ("protocol_metadata", _SUBSCRIPTION)), (("member_metadata", _SUBSCRIPTION),)),  # JoinGroup
    12: (_IN_GROUP, ()),  # Heartbeat
    13: (_IN_GROUP, ()),  # LeaveGroup
    14: ((("group", _GROUP), ("member_metadata", _ASSIGNMENT)), (("member_assignment", _ASSIGNMENT),)),  # SyncGroup
    15: ((("groups", _GROUP),), _MEMBERS),  # DescribeGroups
    16: ((), (("group", _GROUP),)),  # ListGroups
    18: ((), ()),  # ApiVersions
    19: (_TOPICS, _TOPICS),  # CreateTopics
    20: ((("topics", _TOPIC),), _TOPICS),  # DeleteTopics
    21: ((("name", _TOPIC),), (("name", _TOPIC),)),  # DeleteRecords
    22: (_OF_WRITER, ()),  # InitProducerId
    24: ((*_OF_WRITER, ("topic", _TOPIC)), _TOPICS),  # AddPartitionsToTxn
    25: ((*_OF_WRITER, ("group_id", _GROUP)), ()),  # AddOffsetsToTxn
    26: (_OF_WRITER, ()),  # EndTxn
    28: ((*_OF_WRITER, ("group_id", _GROUP), ("topic", _TOPIC)), _TOPICS),  # TxnOffsetCommit
    32: (_RESOURCES, _RESOURCES),  # DescribeConfigs
    33: (_RESOURCES, _RESOURCES),  # AlterConfigs
    37: (_TOPICS, _TOPICS),  # CreatePartitions
    42: ((("groups_names", _GROUP),), (("group_id", _GROUP),)),  # DeleteGroups
}
"""By the number of an API: in which fields of the request, and of the answer, there is what kind of name.

One that is not listed is refused rather than sent with the names of somebody else's topics.
"""


def _with_prefix(prefix: str, name: str | None) -> str | None:
    return name if name is None else prefix + name


def _without_prefix(prefix: str, name: str | None) -> str | None:
    if name is None:
        return None
    if not name.startswith(prefix):
        raise _ForeignError
    return name[len(prefix) :]


def _within(struct_type: Any, fields: _Fields, *, outward: bool) -> Any:
    """The renaming of bytes that hold a struct; what a later version of it has behind is kept."""

    def rename(prefix: str, data: bytes | None) -> bytes | None:
        if not data:
            return data
        rest = BytesIO(data)
        struct = struct_type.decode(rest)
        _rename_fields(struct, fields, prefix, outward=outward)
        encoded: bytes = struct.encode()
        return encoded + rest.read()

    return rename


def _kinds(*, outward: bool) -> dict[str, Any]:
    """How each kind of name is changed, in one direction."""
    rename = _with_prefix if outward else _without_prefix
    return {
        _TOPIC: rename,
        _GROUP: rename,
        _SUBSCRIPTION: _within(ProtocolMetadata, (("subscription", _TOPIC),), outward=outward),
        _ASSIGNMENT: _within(MemberAssignment, (("topic", _TOPIC),), outward=outward),
    }


_KINDS: Final = {outward: _kinds(outward=outward) for outward in (True, False)}


def _rename_fields(struct: Any, fields: _Fields, prefix: str, *, outward: bool) -> None:
    """Change the names in a request or an answer. Raises _ForeignError for an answer about a single foreign one."""
    struct_type: Any = type(struct)
    for field, rename in _renaming(struct_type, fields, outward):
        setattr(struct, field, rename(prefix, getattr(struct, field)))


@cache  # there are as many as the library has versions of requests
def _renaming(struct_type: Any, fields: _Fields, outward: bool) -> list[tuple[str, Any]]:
    """The fields of a struct with names in them, each with what changes these."""
    schema, kinds = struct_type.SCHEMA, {field: _KINDS[outward][kind] for field, kind in fields}
    found = [(name, _renaming_of(of, name, kinds)) for name, of in zip(schema.names, schema.fields, strict=True)]
    return [(name, rename) for name, rename in found if rename is not None]


def _renaming_of(type_: Any, name: str, kinds: Mapping[str, Any]) -> Any:
    """What changes the names in a field of this type and name; None if it has none."""
    if isinstance(type_, Schema):
        within = [_renaming_of(of, each, kinds) for each, of in zip(type_.names, type_.fields, strict=True)]
        if not any(within):
            return None
        rename = _rename_parts(within)
        return _only_of_topics(rename, type_.names.index(_TYPE)) if _TYPE in type_.names else rename
    if isinstance(type_, Array):
        of_one = _renaming_of(type_.array_of, name, kinds)
        return None if of_one is None else _rename_entries(of_one)
    return kinds.get(name)


def _only_of_topics(rename: Any, type_at: int) -> Any:
    """Changes what is said of a topic; a broker keeps the name that it has."""
    return lambda prefix, values: rename(prefix, values) if values[type_at] == ConfigResourceType.TOPIC else values


def _rename_parts(within: list[Any]) -> Any:
    """Changes those parts of a tuple that have something to change them with."""

    def rename(prefix: str, values: Any) -> tuple[Any, ...]:
        return tuple(value if each is None else each(prefix, value) for each, value in zip(within, values, strict=True))

    return rename


def _rename_entries(of_one: Any) -> Any:
    """Changes each entry of an array, and drops those that are of somebody else."""

    def rename(prefix: str, values: Any) -> list[Any] | None:
        if values is None:
            return None
        renamed = []
        for value in values:
            try:
                renamed.append(of_one(prefix, value))
            except _ForeignError:
                continue
        return renamed

    return rename
