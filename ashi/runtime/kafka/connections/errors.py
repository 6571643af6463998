"""What errors of the client library mean: which say that Kafka cannot be reached or entered, and what to do then."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from aiokafka import TopicPartition
from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    InvalidTimestampError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    NotCoordinatorForGroupError,
    OutOfOrderSequenceNumber,
    RequestTimedOutError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
)

from ashi.contracts.errors import BrokerError, BrokerUnreachableError, NotPermittedError
from ashi.runtime.descriptors import lack_of_descriptors
from ashi.runtime.kafka.authentication.diagnosis import refusal
from ashi.runtime.kafka.connections.naming import kafka_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from aiokafka.client import AIOKafkaClient

    from ashi.runtime.settings import Settings


_NOT_PERMITTED: Final = (
    TopicAuthorizationFailedError,
    GroupAuthorizationFailedError,
    ClusterAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
_QUOTED: Final = "AuthorizationFailedError("
"""In errors of the library that hold another one as a text, as those of fetching what a group has committed."""
_NO_COORDINATOR: Final = "Unable to get coordinator id for "
"""What the library's client for administration says before the name of a group."""
GRANT: Final = "Grant it (kafka-acls --add; docs/access.md has what each stage needs), then start again"
PROBE_TIMEOUT_S: Final = 3.0
"""How long an address may take to accept a connection when the reason of a failure is looked for."""


@contextmanager
def broker_errors(settings: Settings) -> Iterator[None]:
    """Around calls of the client library: an error that says Kafka is out of reach becomes a BrokerError."""
    try:
        yield
    except KafkaError as error:
        broker_error = as_broker_error(error, settings)
        if broker_error is None:
            raise
        raise broker_error from error
    except (OSError, TimeoutError) as error:
        raise _unreachable(settings, str(error) or "no answer") from error


@asynccontextmanager
async def client_errors(settings: Settings, client: AIOKafkaClient) -> AsyncIterator[None]:
    """`broker_errors` around what one client of the library does, which also knows where Kafka has sent it on to.

    Raises BrokerUnreachableError where nobody answers, and BrokerError where somebody does and does not let us in.

    `client`: what the library's producers, consumers and administrators connect with.
    """
    try:
        with broker_errors(settings):
            yield
    except BrokerError as error:
        if lack_of_descriptors(error.__cause__) is not None:
            raise
        if (advertised := await unreachable_broker(client)) is not None:
            raise BrokerUnreachableError(advertised) from error
        if isinstance(error, BrokerUnreachableError) and (refused := await refusal(settings, client)) is not None:
            raise BrokerError(refused) from error
        raise


async def unreachable_broker(client: AIOKafkaClient) -> str | None:
    """What is wrong if an address that was given answers and one that Kafka sends us on to cannot be reached."""
    brokers = sorted((broker.nodeId, broker.host, broker.port) for broker in client.cluster.brokers())
    if not brokers:
        return None  # nobody has answered
    given = [(host, port) for host, port, _ in client.hosts]
    addresses = list(dict.fromkeys([*given, *((host, port) for _, host, port in brokers)]))
    failures = dict(zip(addresses, await asyncio.gather(*map(can_connect, addresses)), strict=True))
    answering = [f"{host}:{port}" for host, port in given if failures[host, port] is None]
    lost = [(number, host, port) for number, host, port in brokers if failures[host, port] is not None]
    if not answering or not lost:
        return None
    number, host, port = lost[0]
    more = f" (so are {len(lost) - 1} more brokers)" if len(lost) > 1 else ""
    return (
        f"Kafka at {answering[0]} (ASHI_KAFKA_BOOTSTRAP) answers, but sends us on to {host}:{port}, its broker "
        f"{number}, which cannot be reached from here: {failures[host, port]}{more}; start that broker if it is down, "
        "else correct its `advertised.listeners` to an address that this machine can reach"
    )


async def require_brokers(client: AIOKafkaClient) -> None:
    """Raises BrokerUnreachableError that names a broker which clients would try for ever, and not say which."""
    if (unreachable := await unreachable_broker(client)) is not None:
        raise BrokerUnreachableError(unreachable)


async def can_connect(address: tuple[str, int]) -> str | None:
    """Why no connection to an address can be made; None if it can."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(*address)
    except TimeoutError:
        return f"no answer within {PROBE_TIMEOUT_S:g} s"
    except OSError as error:
        return error.strerror or str(error)
    writer.close()
    return None


def as_broker_error(error: BaseException, settings: Settings) -> BrokerError | None:  # noqa: PLR0911 - one a cause
    """The BrokerError for an error of the client library; None when it is not about reaching or entering Kafka."""
    where = _where(settings)
    if isinstance(error, (AuthenticationFailedError, SaslAuthenticationFailed, UnsupportedSaslMechanismError)):
        return BrokerError(
            f"{where} refuses the login of {settings.kafka_username!r}: {error}; "
            "correct ASHI_KAFKA_USERNAME, ASHI_KAFKA_PASSWORD or ASHI_KAFKA_SASL_MECHANISM"
        )
    if isinstance(error, _NOT_PERMITTED) or (isinstance(error, KafkaError) and _QUOTED in str(error)):
        return NotPermittedError(f"{where} does not permit {who_asks(settings)}: {_refused(error, settings)}. {GRANT}")
    if isinstance(error, UnknownTopicOrPartitionError):
        return BrokerError(
            f"{where} lacks a topic that is needed: run `ashi topics create`, then start again ({error})"
        )
    if isinstance(error, InvalidTimestampError):
        return BrokerError(
            f"{where} refuses records from this machine, whose clock says {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: "
            "further from Kafka's own than it allows (message.timestamp.after.max.ms, an hour by default). Correct the "
            "clock that is wrong, then start again; `ashi topics check` says how to let topics take Kafka's own time, "
            "of which nothing is refused"
        )
    if isinstance(error, OutOfOrderSequenceNumber):
        return BrokerError(
            f"{where} has lost records that it had acknowledged to this process ({error}): the log of a partition was "
            "cut, by an election that was not clean or by a restore, and nothing more is sent on top of it. Start "
            "again, which goes on from what stands there; `unclean.leader.election.enable=false` and "
            "`min.insync.replicas` of 2 or more keep Kafka from losing records"
        )
    if isinstance(error, KafkaConnectionError) and "bootstrap" in str(error):
        # The library has logged why, and says no more in its error, not even that a login was refused.
        protocol = settings.kafka_security_protocol
        return _unreachable(settings, f"no broker there answers, or none accepts a client that speaks {protocol}")
    if isinstance(error, (KafkaConnectionError, KafkaTimeoutError, NodeNotReadyError, RequestTimedOutError)):
        return _unreachable(settings, str(error))
    if isinstance(error, (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)):
        return BrokerUnreachableError(
            f"{where} has no coordinator for a group yet, as when it has just started ({error}): look at the broker's "
            "log if that stays so"
        )
    return None


def not_taken(topic: str, error: BaseException, settings: Settings, *, then: str = "start again") -> BrokerError:
    """The BrokerError for messages that were not delivered: what the library says of it, and for which topic.

    `then`: what to do when the broker's log has told why.
    """
    if (explained := as_broker_error(error, settings)) is not None:
        return explained
    cancelled = isinstance(error, asyncio.CancelledError)
    reason = "it was cancelled" if cancelled else str(error) or type(error).__name__
    return BrokerError(
        f"{_where(settings)} did not take messages for topic {kafka_name(settings, topic)} ({reason}). Look at the "
        f"broker's log, then {then}"
    )


def _refused(error: BaseException, settings: Settings) -> str:
    """What is not permitted, as far as the library says it."""
    told = error.args[0] if error.args else None
    if isinstance(error, GroupAuthorizationFailedError) and told:
        return f"Read on group {kafka_name(settings, str(told).removeprefix(_NO_COORDINATOR))}"
    if isinstance(error, TransactionalIdAuthorizationFailed) and told:
        return f"Write on transactional id {kafka_name(settings, str(told))}"
    if isinstance(error, TopicAuthorizationFailedError) and told:
        topics = {told} if isinstance(told, (str, TopicPartition)) else set(told)
        names = sorted(topic.topic if isinstance(topic, TopicPartition) else topic for topic in topics)
        return f"what is needed on topic {', '.join(kafka_name(settings, name) for name in names)}"
    return f"something that is needed ({error})"


def is_refused_for_its_time(error: BaseException | None) -> bool:
    """Whether this, or what caused it, is a broker's refusal of a record from too far in its future or past."""
    return error is not None and (isinstance(error, InvalidTimestampError) or is_refused_for_its_time(error.__cause__))


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors of a group, or the one that it is."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def who_asks(settings: Settings) -> str:
    """As whom Kafka knows us, for people."""
    if settings.kafka_username is not None:
        return f"user {settings.kafka_username!r}"
    if settings.kafka_sasl_mechanism is not None:
        return "the user of the token"
    return "whoever does not log in" if settings.kafka_cert_file is None else "the user of the certificate"


def _where(settings: Settings) -> str:
    return f"Kafka at {settings.kafka_bootstrap} (ASHI_KAFKA_BOOTSTRAP)"


def _unreachable(settings: Settings, reason: str) -> BrokerError:
    if (lacking := lack_of_descriptors()) is not None:
        return BrokerError(f"cannot reach {_where(settings)}: {lacking}")
    return BrokerUnreachableError(
        f"cannot reach {_where(settings)}: {reason}; start one with `ashi broker start` or correct the address"
        + ("" if settings.kafka_security_protocol == "PLAINTEXT" else ", the login or ASHI_KAFKA_SECURITY_PROTOCOL")
    )


def lacks_room(error: BaseException) -> bool:
    """Whether a producer refused something only because it still holds what came before: it may be given it again."""
    return isinstance(error, KafkaTimeoutError)


def is_unanswered(error: BaseException) -> bool:
    """Whether the client has waited for an answer in vain, for as long as it does."""
    return isinstance(error, (KafkaTimeoutError, TimeoutError))
