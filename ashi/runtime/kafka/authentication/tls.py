"""TLS by files that are replaced while the process runs, as certificates are that live for weeks."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Any

from ashi.contracts.errors import UsageError
from ashi.runtime.file_stamps import stamp_of
from ashi.runtime.library_logs import WEATHER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ashi.runtime.settings import Settings

# Not by structlog: who only reads the topics does not need it.
_weather = logging.getLogger(f"{WEATHER}.{__name__}")

_expiries: dict[tuple[str, str | None], float] = {}
_contexts: dict[tuple[Path | None, ...], RenewedContext] = {}
"""Of this process, by their files: a client made while these are half replaced has what was read before, too."""


def certificate_expiries() -> dict[str, float]:
    """Until when the certificates are good that this process uses and was shown, seconds since the epoch.

    Of the `broker`s that it has connected to the first that expires, of the file of the `authority` likewise, and the
    `client`'s own. Empty without TLS.
    """
    kinds = {kind for kind, _ in _expiries}
    return {kind: min(at for (of, _), at in _expiries.items() if of == kind) for kind in sorted(kinds)}


class _WatchedObject(ssl.SSLObject):
    """A connection that notes until when the certificate of its other end is good."""

    def do_handshake(self) -> None:
        super().do_handshake()
        if told := self.getpeercert():
            _expiries["broker", self.server_hostname] = _expiry_of(told)


def _expiry_of(certificate: Mapping[str, Any]) -> float:
    return ssl.cert_time_to_seconds(certificate["notAfter"])


class RenewedContext(ssl.SSLContext):
    """Begins each connection with what its files hold then. Connections that stand stay as they are.

    What is read is a context of its own: with another file of authorities, those of the one before are trusted no more.

    Attributes:
        ca_file: certificates that the brokers' are checked against; the system's if None.
        cert_file: our certificate and those between it and its authority, with `key_file`; None for none.
        key_file: its private key.
        current: what connections are begun with, as it was read last.
        is_behind: whether the files have been replaced since by what cannot be read.

    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    current: ssl.SSLContext
    is_behind: bool = False
    _stamps: tuple[object, ...] = ()

    def load(self) -> None:
        """Read the files. Raises OSError, of which ssl.SSLError is one, and then nothing has changed."""
        stamps = self._look()
        fresh = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which checks certificates and names
        fresh.sslobject_class = _WatchedObject
        if self.ca_file is None:
            fresh.load_default_certs()
        else:
            fresh.load_verify_locations(self.ca_file)
        if self.cert_file is not None:
            fresh.load_cert_chain(self.cert_file, self.key_file, password=_refuse_passphrase)
            # The one way that the standard library has to read a certificate of a file; its own tests use it.
            _expiries["client", None] = _expiry_of(ssl._ssl._test_decode_cert(str(self.cert_file)))  # type: ignore[attr-defined]
        if self.ca_file is not None and (known := fresh.get_ca_certs()):
            _expiries["authority", None] = min(map(_expiry_of, known))
        self.current, self._stamps = fresh, stamps

    def renew(self) -> None:
        """Read the files if they were replaced; what cannot be read is told, and what was read before is kept."""
        try:
            if self._look() != self._stamps:
                self.load()
        except OSError as error:
            self.is_behind = True
            _weather.warning("certificates cannot be read again, going on with those of before: %s", error)
            return
        if self.is_behind:
            self.is_behind = False
            _weather.info("certificates can be read again: new connections are made with those that are there now")

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection, as asyncio does."""
        self.renew()
        return self.current.wrap_bio(*arguments, **options)

    def _look(self) -> tuple[object, ...]:
        return tuple(stamp_of(path) for path in (self.ca_file, self.cert_file, self.key_file) if path is not None)


def _refuse_passphrase() -> str:
    """In place of OpenSSL's own way, which asks at the terminal and waits."""
    raise OSError("the private key needs a passphrase")


def certificates_are_behind() -> bool:
    """Look at the files of all connections again; whether some were replaced by what cannot be read."""
    contexts = list(_contexts.values())
    for context in contexts:
        context.renew()
    return any(context.is_behind for context in contexts)


def make_context(settings: Settings) -> ssl.SSLContext:
    """What the settings say of certificates, the same for all clients of the process.

    Raises UsageError when a file holds none that can be read, and never did.
    """
    files = (settings.kafka_ca_file, settings.kafka_cert_file, settings.kafka_key_file)
    if (known := _contexts.get(files)) is not None:
        return known
    context = RenewedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.ca_file = settings.kafka_ca_file
    try:
        context.load()
    except OSError as error:
        raise UsageError(
            f"ASHI_KAFKA_CA_FILE {str(settings.kafka_ca_file)!r} holds no certificate that can be read ({error}): "
            "write the path of a file of certificates in PEM form"
        ) from None
    context.cert_file, context.key_file = settings.kafka_cert_file, settings.kafka_key_file
    try:
        context.load()
    except OSError as error:
        raise UsageError(
            f"ASHI_KAFKA_CERT_FILE {str(settings.kafka_cert_file)!r} and ASHI_KAFKA_KEY_FILE "
            f"{str(settings.kafka_key_file)!r} hold no certificate with its key ({error}): write the paths of a file "
            "of certificates and of one with the private key, without a passphrase, in PEM form"
        ) from None
    return _contexts.setdefault(files, context)
