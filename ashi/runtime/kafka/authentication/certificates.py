"""The certificates that brokers show, and our own: whose they are, and until when they are good."""

from __future__ import annotations

import asyncio
import ssl
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ashi.runtime.kafka.authentication.diagnosis import untrusted
from ashi.runtime.kafka.authentication.tls import make_context

if TYPE_CHECKING:
    from pathlib import Path

    from ashi.runtime.settings import Settings

HANDSHAKE_TIMEOUT_S: Final = 3.0


class Certificate(NamedTuple):
    """One certificate: its subject as `CN=…`, and when it expires, µs since the epoch."""

    subject: str
    not_after: int


class Shown(NamedTuple):
    """What a broker showed: its own certificate first, then those up to the authority; or why it is not trusted."""

    chain: tuple[Certificate, ...]
    refused: str | None


async def shown_by(settings: Settings, host: str, port: int) -> Shown:
    """The certificates of the broker at an address, checked as every client of ours checks them.

    Raises OSError or TimeoutError when nobody answers there with TLS, UsageError for files that hold no certificate.
    """
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port, ssl=make_context(settings), server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        return Shown((), untrusted(error, host))
    try:
        connection: Any = writer.get_extra_info("ssl_object")
        # Public since Python 3.13, and then as bytes that nothing in the standard library reads.
        verified = getattr(getattr(connection, "_sslobj", None), "get_verified_chain", None)
        told = [each.get_info() for each in verified()] if verified is not None else [connection.getpeercert()]
        return Shown(tuple(map(_certificate, told)), None)
    finally:
        writer.close()


def own_certificate(path: Path) -> Certificate:
    """The first certificate of a file in PEM form. Raises OSError when it holds none."""
    # The one way that the standard library has to read a certificate of a file; its own tests use it.
    return _certificate(ssl._ssl._test_decode_cert(str(path)))  # type: ignore[attr-defined]


def _certificate(told: dict[str, Any]) -> Certificate:
    subject = ",".join(f"{_SHORT.get(name, name)}={value}" for part in told.get("subject", ()) for name, value in part)
    expires = datetime.strptime(told["notAfter"], "%b %d %H:%M:%S %Y GMT")  # noqa: DTZ007 - said to be GMT
    return Certificate(subject, int((expires - datetime(1970, 1, 1)).total_seconds()) * 1_000_000)  # noqa: DTZ001


_SHORT: Final = {"commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C"}
