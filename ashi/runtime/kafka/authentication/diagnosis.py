"""Why Kafka does not let us in, asked of it once more: the client library logs the reason and raises another error."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, Final

from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    RequestTimedOutError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from ashi.runtime.kafka.authentication.tokens import TokenError
from ashi.runtime.settings.kafka import OAUTHBEARER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiokafka.client import AIOKafkaClient

    from ashi.runtime.settings import Settings

PROBE_TIMEOUT_S: Final = 3.0
"""How long an address may take to accept a connection, and as long again to answer."""

_NO_TLS: Final = {"SSL": "PLAINTEXT", "SASL_SSL": "SASL_PLAINTEXT"}
_TLS: Final = {plain: protocol for protocol, plain in _NO_TLS.items()}

# X509_V_ERR_… of OpenSSL's x509_vfy.h.
_EXPIRED: Final = {9: "is not valid yet", 10: "has expired"}
_WRONG_HOST: Final = {62, 64}


async def refusal(settings: Settings, client: AIOKafkaClient) -> str | None:
    """What is to be corrected before any of the addresses lets a client in; None if one does, or nobody answers."""
    options = {
        name: getattr(client, f"_{name}")
        for name in (
            "security_protocol",
            "ssl_context",
            "sasl_mechanism",
            "sasl_plain_username",
            "sasl_plain_password",
            "sasl_oauth_token_provider",
        )
    }
    found = None
    for host, port, _ in client.hosts:
        try:
            sentence = await _refusal(settings, options, host, port)
        except (KafkaError, OSError):
            continue  # nobody answers there
        if sentence is None:
            return None
        found = found or f"Kafka at {host}:{port} (ASHI_KAFKA_BOOTSTRAP) {sentence}"
    return found


async def _refusal(  # noqa: PLR0911 - one a cause
    settings: Settings, options: Mapping[str, Any], host: str, port: int
) -> str | None:
    """As `refusal`, of one address. Raises KafkaError or OSError where nobody answers."""
    protocol = settings.kafka_security_protocol
    try:
        # A token that is refused looks to the library as one that is taken: Kafka says so in the answer to it, waits
        # for a confirmation (RFC 7628), and takes the question for one.
        if not await _enter(host, port, options) and settings.kafka_sasl_mechanism == OAUTHBEARER:
            return (
                "refuses the token: it may have expired, or be for somebody else. Look at what ASHI_KAFKA_TOKEN_FILE "
                "or ASHI_KAFKA_TOKEN_COMMAND gives"
            )
    except ssl.SSLCertVerificationError as error:
        return untrusted(error, host)
    except TokenError as error:
        return f"was not asked, as there is no token to log in with: {_words(error)}"
    except (SaslAuthenticationFailed, AuthenticationFailedError) as error:
        return (
            f"refuses the login of {settings.kafka_username!r}: {_words(error)}. The user is unknown there or the "
            "password is wrong: correct ASHI_KAFKA_USERNAME or ASHI_KAFKA_PASSWORD"
        )
    except UnsupportedSaslMechanismError:
        return f"knows no login by {settings.kafka_sasl_mechanism}: correct ASHI_KAFKA_SASL_MECHANISM"
    except IllegalSaslStateError:
        return f"takes no login: set ASHI_KAFKA_SECURITY_PROTOCOL to {protocol.removeprefix('SASL_')}"
    except (TimeoutError, RequestTimedOutError):
        raise  # who says nothing may be asked by nobody
    except (KafkaError, OSError) as error:
        if (alert := _alert(error)) is not None:
            return f"refuses our certificate, or wants one: {alert}. Set ASHI_KAFKA_CERT_FILE and ASHI_KAFKA_KEY_FILE"
        if (sentence := await _other_protocol(protocol, options, host, port)) is None:
            raise
        return sentence
    return None


async def _other_protocol(protocol: str, options: Mapping[str, Any], host: str, port: int) -> str | None:
    """What the address speaks, should it be another protocol than ours."""
    if protocol in _TLS and await _speaks_tls(host, port):
        return f"speaks TLS and we do not: set ASHI_KAFKA_SECURITY_PROTOCOL to {_TLS[protocol]}"
    if protocol in _NO_TLS and await _connects(host, port, {}):
        return f"speaks no TLS and we do: set ASHI_KAFKA_SECURITY_PROTOCOL to {_NO_TLS[protocol]}"
    if not protocol.startswith("SASL_") and await _connects(host, port, options):
        return f"wants a login: set ASHI_KAFKA_SECURITY_PROTOCOL to SASL_{protocol}, and the login"
    return None


async def _enter(host: str, port: int, options: Mapping[str, Any], *, ask: bool = True) -> bool:
    """Connect, log in, and `ask` who is there, as only who is let in may ask: whether somebody is.

    Raises what the library does.
    """
    connection = AIOKafkaConnection(host, port, request_timeout_ms=int(PROBE_TIMEOUT_S * 1_000), **options)
    try:
        await connection.connect()
        return not ask or bool((await connection.send(MetadataRequest([]))).brokers)
    finally:
        connection.close()


async def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # sends nothing and trusts nobody: whether it is TLS is asked
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except OSError:
        return False
    writer.close()
    return True


async def _connects(host: str, port: int, options: Mapping[str, Any]) -> bool:
    """Whether it answers who speaks so. What versions it has it tells anybody, also before a login."""
    try:
        await _enter(host, port, options, ask=False)
    except (KafkaError, OSError):
        return False
    return True


def _alert(error: BaseException | None) -> str | None:
    """What a broker ends TLS with, should this or what caused it say so: it comes after a handshake, as an answer."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
            return str(error.reason).replace("_", " ").lower()
        error = error.__cause__ or error.__context__
    return None


def untrusted(error: ssl.SSLCertVerificationError, host: str) -> str:
    """What is wrong with a broker's certificate, and what to do: the end of a sentence about its address."""
    if error.verify_code in _EXPIRED:
        return f"shows a certificate that {_EXPIRED[error.verify_code]}: renew it, or correct the clock of this machine"
    if error.verify_code in _WRONG_HOST:
        return (
            f"shows a certificate for another name than {host!r}: write an address that stands in the certificate, or "
            f"have it made anew for this one ({error.verify_message})"
        )
    return (
        f"shows a certificate that is not trusted ({error.verify_message}): name the certificates of its authority in "
        "ASHI_KAFKA_CA_FILE"
    )


def _words(error: KafkaError) -> str:
    """What the broker said, without the library's name for it."""
    return str(error.args[0] if error.args else type(error).__name__).rstrip(".")
