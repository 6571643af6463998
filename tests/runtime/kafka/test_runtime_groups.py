"""What a group's coordinator is asked, while it has no answer yet and when it never has one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import (
    CoordinatorLoadInProgressError,
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
)

from ashi.contracts.errors import BrokerError
from ashi.runtime.kafka.cluster import offsets
from ashi.runtime.kafka.consuming import groups
from ashi.runtime.settings import Settings

SETTINGS = Settings.from_environment({})


class FakeAdmin:
    """Gives one answer after the other, the last one for ever; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def _answer(self) -> Any:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def describe_topics(self) -> list[dict[str, Any]]:
        return [{"topic": "trades", "error_code": 0, "partitions": [{"partition": 0}, {"partition": 1}]}]

    async def list_consumer_group_offsets(self, group: str, partitions: Any) -> Any:
        return await self._answer()

    async def describe_consumer_groups(self, asked: list[str]) -> Any:
        return [SimpleNamespace(groups=[await self._answer()])]


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeAdmin]:
    def make(*answers: Any) -> FakeAdmin:
        client = FakeAdmin(*answers)

        @asynccontextmanager
        async def admin_client(_: Settings) -> AsyncIterator[FakeAdmin]:
            yield client

        monkeypatch.setattr(groups, "admin_client", admin_client)
        monkeypatch.setattr(offsets, "admin_client", admin_client)
        return client

    monkeypatch.setattr(offsets, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(offsets, "RETRY_MOST_S", 0.001)
    return make


def described(code: int, members: int) -> list[Any]:
    return [code, "group", "Stable", "consumer", "range", [member(number) for number in range(members)]]


def member(number: int) -> tuple[object, ...]:
    """A member that has the partition of its number."""
    assignment = ConsumerProtocol.ASSIGNMENT(0, [("trades", [number])], b"").encode()
    return (f"member-{number}", "client", "host", b"", assignment)


def test_a_group_is_asked_again_until_its_coordinator_answers(admin: Callable[..., FakeAdmin]) -> None:
    loading = described(CoordinatorLoadInProgressError.errno, 0)
    client = admin(GroupCoordinatorNotAvailableError(), loading, described(0, 3))
    assert asyncio.run(groups.members(SETTINGS, "g")) == 3
    assert client.asked == 3
    admin(described(0, 2))
    view = asyncio.run(groups.view_group(SETTINGS, "g"))
    assert view == groups.GroupView(2, frozenset({TopicPartition("trades", 0), TopicPartition("trades", 1)}))

    answer = {
        TopicPartition("trades", 0): SimpleNamespace(offset=7, metadata="a note"),
        TopicPartition("trades", 1): SimpleNamespace(offset=-1, metadata=""),
    }
    client = admin({}, GroupCoordinatorNotAvailableError(), answer)
    assert asyncio.run(offsets.committed_offsets(SETTINGS, "g", "trades")) == {0: 7}
    assert client.asked == 3


def test_a_group_that_never_answers_or_is_refused_is_an_error_that_says_which(
    admin: Callable[..., FakeAdmin], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offsets, "COORDINATOR_TIMEOUT_S", 0.02)
    admin(GroupCoordinatorNotAvailableError())
    who = r"does not say who is in group 'g' \(GroupCoordinatorNotAvailableError\): look at the broker's log"
    with pytest.raises(BrokerError, match=who):
        asyncio.run(groups.members(SETTINGS, "g"))
    admin({})
    loading = r"does not say how far group 'g' has come \(its coordinator is still loading\): look at the broker's log"
    with pytest.raises(BrokerError, match=loading):
        asyncio.run(offsets.committed_offsets(SETTINGS, "g", "trades"))

    monkeypatch.setattr(offsets, "COORDINATOR_TIMEOUT_S", 20.0)
    client = admin(described(GroupAuthorizationFailedError.errno, 0))
    with pytest.raises(GroupAuthorizationFailedError) as told:
        asyncio.run(groups.members(SETTINGS, "g"))
    assert told.value.args == ("g",)
    assert client.asked == 1
    client = admin(GroupAuthorizationFailedError())
    with pytest.raises(GroupAuthorizationFailedError):
        asyncio.run(offsets.committed_offsets(SETTINGS, "g", "trades"))
    assert client.asked == 1
