"""What a stage ends with that Kafka refuses something after it has looked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.errors import IllegalStateError, KafkaConnectionError, TopicAuthorizationFailedError

from ashi.contracts.access import REPLAY
from ashi.contracts.errors import BrokerError, BrokerUnreachableError, NotPermittedError, StorageError
from ashi.runtime.kafka.cluster import access
from ashi.runtime.kafka.cluster.access import rights_named

if TYPE_CHECKING:
    from ashi.contracts.access import Access
    from ashi.runtime.settings import Settings

LACKING = NotPermittedError("Write on topic trades")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Exception | None]:
    """What comes of each look at the rights."""
    left: list[Exception | None] = []

    async def require_access(_: Settings, needed: Access) -> None:
        assert needed is REPLAY
        if (answer := left.pop(0)) is not None:
            raise answer

    monkeypatch.setattr(access, "require_access", require_access)
    return left


def fail_with(settings: Settings, error: Exception) -> Any:
    async def main() -> None:
        async with rights_named(settings, REPLAY):
            raise error

    with pytest.raises(Exception) as told:
        asyncio.run(main())
    return told.value


@pytest.mark.parametrize(
    "error",
    [
        TopicAuthorizationFailedError(),
        NotPermittedError("something"),
        BrokerError("no topic trades"),
        ExceptionGroup("two", [ValueError(), TopicAuthorizationFailedError()]),
    ],
)
def test_who_is_refused_asks_again_which_right_is_missing(
    settings: Settings, answers: list[Exception | None], error: Exception
) -> None:
    answers.append(LACKING)
    assert fail_with(settings, error) is LACKING
    assert LACKING.__cause__ is error


@pytest.mark.parametrize(
    "answer", [None, BrokerError("no topic candles"), BrokerUnreachableError("gone"), TimeoutError()]
)
def test_what_was_refused_is_told_where_kafka_names_no_right(
    settings: Settings, answers: list[Exception | None], answer: Exception | None
) -> None:
    answers.append(answer)
    error = TopicAuthorizationFailedError()
    assert fail_with(settings, error) is error
    assert not answers


@pytest.mark.parametrize(
    "error", [KafkaConnectionError(), BrokerUnreachableError("gone"), StorageError("full"), IllegalStateError()]
)
def test_kafka_is_not_asked_for_rights_of_what_has_nothing_to_do_with_them(
    settings: Settings, answers: list[Exception | None], error: Exception
) -> None:
    answers.append(LACKING)
    assert fail_with(settings, error) is error
    assert answers
