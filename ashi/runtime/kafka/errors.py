"""What errors of the client library mean: which say that Kafka cannot be reached or entered, and what to do then."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from aiokafka.errors import (
    AuthenticationFailedError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RequestTimedOutError,
    SaslAuthenticationFailed,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
)

from ashi.contracts.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ashi.runtime.settings import Settings


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


def as_broker_error(error: BaseException, settings: Settings) -> BrokerError | None:
    """The BrokerError for an error of the client library; None when it is not about reaching or entering Kafka."""
    where = _where(settings)
    if isinstance(error, (AuthenticationFailedError, SaslAuthenticationFailed, UnsupportedSaslMechanismError)):
        return BrokerError(
            f"{where} refuses the login of {settings.kafka_username!r}: {error}; "
            "correct ASHI_KAFKA_USERNAME, ASHI_KAFKA_PASSWORD or ASHI_KAFKA_SASL_MECHANISM"
        )
    if isinstance(error, UnknownTopicOrPartitionError):
        return BrokerError(
            f"{where} lacks a topic that is needed: run `ashi topics create`, then start again ({error})"
        )
    if isinstance(error, KafkaConnectionError) and "bootstrap" in str(error):
        # The library has logged why, and says no more in its error, not even that a login was refused.
        protocol = settings.kafka_security_protocol
        return _unreachable(settings, f"no broker there answers, or none accepts a client that speaks {protocol}")
    if isinstance(error, (KafkaConnectionError, KafkaTimeoutError, NodeNotReadyError, RequestTimedOutError)):
        return _unreachable(settings, str(error))
    return None


def _where(settings: Settings) -> str:
    return f"Kafka at {settings.kafka_bootstrap} (ASHI_KAFKA_BOOTSTRAP)"


def _unreachable(settings: Settings, reason: str) -> BrokerError:
    return BrokerError(
        f"cannot reach {_where(settings)}: {reason}; start one with `ashi broker start` or correct the address"
        + ("" if settings.kafka_security_protocol == "PLAINTEXT" else ", the login or ASHI_KAFKA_SECURITY_PROTOCOL")
    )


def lacks_room(error: BaseException) -> bool:
    """Whether a producer refused something only because it still holds what came before: it may be given it again."""
    return isinstance(error, KafkaTimeoutError)
