"""The names of topics and groups in Kafka, where `ASHI_TOPIC_PREFIX` is set."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka import protocol
from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.protocol.admin import (
    DescribeClientQuotasRequest,
    DescribeConfigsRequest,
    DescribeConfigsResponse_v0,
    ListGroupsRequest,
    ListGroupsResponse_v1,
)
from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v4
from aiokafka.protocol.group import JoinGroupRequest, MemberAssignment, ProtocolMetadata, SyncGroupResponse_v3
from aiokafka.protocol.metadata import MetadataRequest, MetadataResponse_v5
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    TxnOffsetCommitRequest,
)
from aiokafka.protocol.types import Array, Bytes, Schema, String

from ashi.client import kafka_settings
from ashi.contracts.access import Operation, access_table
from ashi.contracts.timeframe import LONGEST_US, SHORTEST_US, Timeframe
from ashi.contracts.topics import topic_specs
from ashi.runtime.kafka.connections import naming
from ashi.runtime.kafka.connections.naming import kafka_name, use_prefix
from ashi.runtime.settings import Settings, SettingsError
from ashi.runtime.settings.parsers import MAX_TOPIC_PREFIX

for module in pkgutil.iter_modules(protocol.__path__):
    importlib.import_module(f"{protocol.__name__}.{module.name}")

PREFIX = "staging."
ALL_VERSIONS = dict.fromkeys(range(100), (0, 99))
NOT_NAMES = {
    *("member_id", "group_instance_id", "protocol_type", "protocol_name", "group_protocol", "leader_id"),
    *("consumer_id", "host", "rack", "rack_id", "cluster_id", "client_id", "client_host"),
    *("metadata", "messages", "message_set", "error_message", "batch_index_error_message", "state", "protocol"),
    *("config_key", "config_name", "config_names", "config_value"),
}
"""What else is text or bytes in the requests and answers of the library."""


def prepared(request: Any) -> Any:
    return naming._Prefixed(request, PREFIX).prepare(ALL_VERSIONS)


def answered(answer: Any) -> Any:
    return naming._Answer(type(answer), PREFIX).decode(answer.encode())


def leaves(of: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The fields of text and bytes in a schema, by name."""
    if isinstance(of, Schema):
        for each, field in zip(of.names, of.fields, strict=True):
            yield from leaves(field, each)
    elif isinstance(of, Array):
        yield from leaves(of.array_of, name)
    elif of is Bytes or isinstance(of, String):
        yield name, of


def every_version(of: type) -> Iterator[Any]:
    each: Any
    for each in of.__subclasses__():
        yield each
        yield from every_version(each)


def test_each_text_of_a_request_and_an_answer_is_a_name_that_is_changed_or_known_to_be_none() -> None:
    """So that no version of a request, a later one of the library neither, goes out with a name as it is."""
    seen = set()
    for side, base in enumerate((RequestStruct, Response)):
        for struct in set(every_version(base)):
            if struct.API_KEY not in naming._NAMES:
                continue
            seen.add(struct.API_KEY)
            changed = {name for name, _ in naming._NAMES[struct.API_KEY][side]}
            unknown = {name for name, _ in leaves(struct.SCHEMA, "")} - changed - NOT_NAMES
            assert not unknown, f"{struct.__name__}: {unknown}"
    assert seen == set(naming._NAMES)


def test_a_request_that_is_not_known_is_not_sent() -> None:
    with pytest.raises(KeyError):
        prepared(DescribeClientQuotasRequest([], False))


def test_of_all_groups_those_of_the_prefix_are_there() -> None:
    assert prepared(ListGroupsRequest()).API_KEY == 16
    told: list[Any] = [("staging.ashi-aggregate", "consumer"), ("ashi-aggregate", "consumer"), ("other", "")]
    assert answered(ListGroupsResponse_v1(0, 0, told)).groups == [("ashi-aggregate", "consumer")]


def test_topics_go_out_with_the_prefix_and_come_back_without() -> None:
    request = FetchRequest(500, 1, 1_000, 0, [("trades", [(0, 17, 100)])], rack_id="")
    assert prepared(request).topics == [("staging.trades", [(0, -1, 17, -1, 100)])]
    assert request.topics == [("trades", [(0, 17, 100)])], "the library looks at its own request afterwards"
    answer = FetchResponse_v4(0, [("staging.trades", [(0, 0, 20, 20, [], b"records")])])
    assert answered(answer).topics == [("trades", [(0, 0, 20, 20, [], b"records")])]


def test_who_writes_transactions_does_so_under_an_id_with_the_prefix() -> None:
    assert prepared(InitProducerIdRequest("writer", 10)).transactional_id == "staging.writer"
    added = prepared(AddPartitionsToTxnRequest("writer", 1, 1, [("signals", [0])]))
    assert (added.transactional_id, added.topics) == ("staging.writer", [("staging.signals", [0])])
    group = prepared(AddOffsetsToTxnRequest("writer", 1, 1, "readers"))
    assert (group.transactional_id, group.group_id) == ("staging.writer", "staging.readers")
    committed = prepared(TxnOffsetCommitRequest("writer", "readers", 1, 1, [("candles", [(0, 7, "note")])]))
    assert (committed.transactional_id, committed.group_id) == ("staging.writer", "staging.readers")
    assert committed.topics == [("staging.candles", [(0, 7, "note")])]
    assert prepared(EndTxnRequest("writer", 1, 1, True)).transactional_id == "staging.writer"
    for writer, name in (("writer", "staging.writer"), (None, None)):
        produced = prepared(ProduceRequest(writer, -1, 1_000, [("signals", [(0, b"")])]))
        assert (produced.transactional_id, produced.topics) == (name, [("staging.signals", [(0, b"")])])


def test_what_is_not_of_the_prefix_is_not_there() -> None:
    topics: list[Any] = [
        (0, name, False, []) for name in ("trades", "staging.trades", "stagingtrades", "production.trades")
    ]
    answer = answered(MetadataResponse_v5(0, [(1, "h", 9092, None)], "c", 1, topics))
    assert answer.topics == [(0, "trades", False, [])]
    assert answer.brokers == [(1, "h", 9092, None)]


def test_all_topics_are_asked_for_as_without_a_prefix() -> None:
    assert prepared(MetadataRequest(None)).topics is None
    assert prepared(MetadataRequest(["trades"])).topics == ["staging.trades"]


def test_the_settings_of_topics_are_asked_for_by_their_names_and_those_of_brokers_by_theirs() -> None:
    asked = prepared(
        DescribeConfigsRequest([(ConfigResourceType.TOPIC, "trades", None), (ConfigResourceType.BROKER, "1", None)])
    )
    assert [entry[:2] for entry in asked.resources] == [
        (ConfigResourceType.TOPIC, "staging.trades"),
        (ConfigResourceType.BROKER, "1"),
    ]
    told: list[Any] = [(0, "", kind, name, []) for kind, name in ((2, "staging.trades"), (4, "1"), (2, "trades"))]
    answer = answered(DescribeConfigsResponse_v0(0, told))
    assert [entry[3] for entry in answer.resources] == ["trades", "1"]


def test_groups_have_the_prefix_and_so_have_the_topics_that_their_members_subscribe_to() -> None:
    assert prepared(FindCoordinatorRequest("ashi-aggregate", 0)).coordinator_key == "staging.ashi-aggregate"
    mine = ProtocolMetadata(0, ["trades"], b"user data").encode()
    joining = prepared(JoinGroupRequest("ashi-aggregate", 1, 1, "", "", "consumer", [("faust", mine + b"later")]))
    assert joining.group == "staging.ashi-aggregate"
    [(protocol_name, metadata)] = joining.group_protocols
    assert protocol_name == "faust"
    assert metadata == ProtocolMetadata(0, ["staging.trades"], b"user data").encode() + b"later"
    given = MemberAssignment(0, [("staging.trades", [1, 2]), ("trades", [3])], b"").encode()
    assigned = answered(SyncGroupResponse_v3(0, 0, given)).member_assignment
    assert MemberAssignment.decode(assigned).assignment == [("trades", [1, 2])]
    assert answered(SyncGroupResponse_v3(0, 27, b"")).member_assignment == b"", "as an error has it"


def test_without_a_prefix_nothing_is_changed() -> None:
    class Client:
        async def _get_conn(self) -> None: ...

    client = Client()
    use_prefix(client, "")
    assert "_get_conn" not in vars(client)
    use_prefix(client, PREFIX)
    assert "_get_conn" in vars(client)


@pytest.mark.parametrize("prefix", ["staging/", "st aging", "größe.", "a:b", "x" * (MAX_TOPIC_PREFIX + 1)])
def test_a_prefix_that_kafka_would_not_take_is_refused(prefix: str) -> None:
    with pytest.raises(SettingsError, match=r"ASHI_TOPIC_PREFIX .*letters, digits, dots, hyphens and underscores.*249"):
        Settings.from_environment({"ASHI_TOPIC_PREFIX": prefix})


def test_the_longest_prefix_leaves_room_for_every_name() -> None:
    """Kafka takes names of up to 249 characters."""
    lengths = [length for length in range(SHORTEST_US, LONGEST_US + 1, SHORTEST_US) if LONGEST_US % length == 0]
    names = [spec.name for spec in topic_specs(1, [Timeframe(length) for length in lengths])]
    assert MAX_TOPIC_PREFIX + max(map(len, names)) <= 249


def test_no_two_prefixes_give_one_name() -> None:
    """`a.` and `a.b.` would, if one name of ours were the end of another."""
    names = [spec.name for spec in topic_specs(1, Settings.from_environment({}).timeframes)]
    assert not [(one, other) for one in names for other in names if one != other and one.endswith(other)]


def test_the_client_library_and_the_table_of_rights_know_the_prefix() -> None:
    settings = kafka_settings("127.0.0.1:9092", topic_prefix=PREFIX, rack="eu-1a")
    assert (settings.topic_prefix, settings.kafka_rack) == (PREFIX, "eu-1a")
    assert kafka_name(settings, "candles") == "staging.candles"
    table = access_table(settings.timeframes, PREFIX)
    assert ("topic", "staging.trades", Operation.WRITE) in set(table["ashi ingest"].rights())
    assert ("group", "staging.ashi-aggregate", Operation.READ) in set(table["ashi aggregate"].rights())
