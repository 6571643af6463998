"""Each user of a deployment can do what its rules say, and nothing else: tried one by one, on a real Kafka."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from attempts import Attempt, Things, attempts
from deployed_users import Rule, User, deployed_users, make_users

from ashi.contracts.errors import BrokerError
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.topics import topic_specs
from ashi.runtime.kafka.connections.clients import partitions_of
from ashi.runtime.settings import Settings
from kafka_topics.fresh_topics import renew_topics

if TYPE_CHECKING:
    from servers.secured_kafka import SecuredKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(240)]

TIMEFRAMES = (Timeframe.parse("1m"),)
STRANGER = User("a-stranger", ())
"""Who has a password, and no rights."""
LAST = User("comes-last", (Rule("topic", "trades", prefixed=False, operations=frozenset({"Describe"})),))
_RIGHT_FOR = {"DeleteRecords": "Delete"}
_DESTROYS = {("Delete", "topic"), ("Delete", "group"), ("Alter", "cluster")}


@pytest.fixture(scope="module")
def users(secured: SecuredKafka) -> list[User]:
    asyncio.run(renew_topics(replace(secured.open, timeframes=TIMEFRAMES)))
    found = [*deployed_users(), STRANGER]
    make_users(secured, found)
    make_users(secured, [LAST])
    deadline_s = time.monotonic() + 60  # Kafka learns of rights in their order, a moment after they are given
    while True:
        try:
            asyncio.run(
                partitions_of(Settings.from_environment(secured.by_scram(LAST.name, "SCRAM-SHA-512")), "trades")
            )
        except BrokerError:
            assert time.monotonic() < deadline_s, "rights do not become known"
            time.sleep(0.1)
        else:
            return found


def things_of(users: list[User]) -> Things:
    """Every topic of a deployment and somebody else's; every group and id that a rule names, and another."""

    def named(kind: str) -> tuple[str, ...]:
        rules = [rule for user in users for rule in user.rules if rule.kind == kind]
        return tuple(sorted({rule.name + "one" * rule.prefixed for rule in rules} | {f"somebodys-{kind.lower()}"}))

    topics = [spec.name for spec in topic_specs(1, TIMEFRAMES)]
    return Things(tuple(sorted(topics)), named("group"), named("transactionalId"))


def test_each_user_can_do_what_its_rules_say_and_nothing_else(secured: SecuredKafka, users: list[User]) -> None:
    things = things_of(users)

    def expected(user: User, attempt: Attempt) -> bool:
        operation, kind, name = attempt
        if operation == "Create" and user.may("Create", "cluster", "kafka-cluster"):
            return True
        return user.may(_RIGHT_FOR.get(operation, operation), kind, name)

    def tried_by(user: User) -> dict[Attempt, bool]:
        return attempts(
            secured.by_scram(user.name, "SCRAM-SHA-512"),
            things,
            lambda attempt: attempt[:2] not in _DESTROYS or not expected(user, attempt),
        )

    with ThreadPoolExecutor(4) as pool:
        found = dict(zip([user.name for user in users], pool.map(tried_by, users), strict=True))
    wrong = {
        (user.name, *attempt): "passes" if passed else "is refused"
        for user in users
        for attempt, passed in found[user.name].items()
        if passed != expected(user, attempt)
    }
    assert not wrong
    assert not any(found[STRANGER.name].values())
    # What the table must never come to say, whatever it is generated from.
    may = {name: {attempt[:3] for attempt, passed in tried.items() if passed} for name, tried in found.items()}
    writers = {
        topic: {name for name, can in may.items() if ("Write", "topic", topic) in can}
        for topic in ("trades", "candles")
    }
    assert writers["trades"] == {"ashi-ingest", "ashi-operator"}
    assert writers["candles"] == {"ashi-aggregate", "ashi-operator"}
    assert {name for name, can in may.items() if {op for op, *_ in can} & {"Create", "Alter", "AlterConfigs"}} <= {
        "ashi-operator"
    }
    readers = {"ashi-chart", "ashi-reader"}
    assert {op for name in readers for op, *_ in may[name]} <= {"Read", "Describe"}
