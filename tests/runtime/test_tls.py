"""Files of certificates: what is wrong with them, and that they are read again."""

from __future__ import annotations

import ssl
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import trustme

from ashi.contracts.errors import UsageError
from ashi.runtime.kafka import tls
from ashi.runtime.kafka.tls import RenewedContext, make_context
from ashi.runtime.settings import Settings, SettingsError

if TYPE_CHECKING:
    from pathlib import Path


def write(authority: trustme.CA, folder: Path) -> dict[str, str]:
    issued = authority.issue_cert("client.example")
    (folder / "cert.pem").write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return {
        "ASHI_KAFKA_SECURITY_PROTOCOL": "SSL",
        "ASHI_KAFKA_CA_FILE": str(folder / "ca.pem"),
        "ASHI_KAFKA_CERT_FILE": str(folder / "cert.pem"),
        "ASHI_KAFKA_KEY_FILE": str(folder / "key.pem"),
    }


def connect(context: ssl.SSLContext) -> None:
    context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="kafka.example")


def subjects(context: ssl.SSLContext) -> int:
    return len(context.get_ca_certs())


def test_files_are_read_again_when_they_are_replaced_and_kept_while_they_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = write(trustme.CA(), tmp_path)
    context = make_context(Settings.from_environment(given))
    loads: list[object] = []
    load = RenewedContext.load

    def count(self: RenewedContext) -> None:
        loads.append(None)
        load(self)

    monkeypatch.setattr(RenewedContext, "load", count)
    connect(context)
    assert (len(loads), subjects(context)) == (0, 1)
    write(trustme.CA(), tmp_path)
    connect(context)
    connect(context)
    assert (len(loads), subjects(context)) == (1, 2)
    (tmp_path / "key.pem").write_text("half a k")
    connect(context)
    assert len(loads) == 2
    (tmp_path / "key.pem").unlink()
    connect(context)
    write(trustme.CA(), tmp_path)
    connect(context)
    assert (len(loads), subjects(context)) == (3, 3)


@pytest.mark.parametrize(
    ("name", "setting"), [("ca.pem", "CA_FILE"), ("cert.pem", "CERT_FILE"), ("key.pem", "KEY_FILE")]
)
def test_a_file_that_holds_no_certificate_is_named_at_the_start(tmp_path: Path, name: str, setting: str) -> None:
    given = write(trustme.CA(), tmp_path)
    (tmp_path / name).write_text("words")
    with pytest.raises(UsageError, match=f"ASHI_KAFKA_{setting}"):
        make_context(Settings.from_environment(given))


def test_a_certificate_without_its_key_and_one_without_tls_are_refused(tmp_path: Path) -> None:
    given = write(trustme.CA(), tmp_path)
    del given["ASHI_KAFKA_KEY_FILE"]
    with pytest.raises(SettingsError, match="belong together"):
        Settings.from_environment(given)
    del given["ASHI_KAFKA_SECURITY_PROTOCOL"], given["ASHI_KAFKA_CA_FILE"]
    with pytest.raises(SettingsError, match="ASHI_KAFKA_CERT_FILE is set but ASHI_KAFKA_SECURITY_PROTOCOL 'PLAINTEXT'"):
        Settings.from_environment(given)


def test_it_is_known_until_when_the_certificates_are_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_expiries", {})
    authority = trustme.CA()
    given = write(authority, tmp_path)
    soon = authority.issue_cert("client.example", not_after=datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC))
    (tmp_path / "cert.pem").write_bytes(b"".join(each.bytes() for each in soon.cert_chain_pems))
    soon.private_key_pem.write_to_path(tmp_path / "key.pem")
    context = make_context(Settings.from_environment(given))
    found = tls.certificate_expiries()
    assert found["client"] == datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC).timestamp()
    assert found["authority"] > time.time()
    assert "broker" not in found, "none was connected to"
    for name, day in (("a.example", 9), ("b.example", 7)):
        shake_hands(context, authority.issue_cert(name, not_after=datetime(2030, 1, day, tzinfo=UTC)), name)
    assert tls.certificate_expiries()["broker"] == datetime(2030, 1, 7, tzinfo=UTC).timestamp()


def shake_hands(context: ssl.SSLContext, certificate: trustme.LeafCert, name: str) -> None:
    """A whole handshake in memory with a server of this name."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(serving)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(back, there, server_hostname=name)
    server = serving.wrap_bio(there, back, server_side=True)
    left = [client, server]
    for _ in range(10):
        for each in list(left):
            try:
                each.do_handshake()
            except ssl.SSLWantReadError:
                continue
            left.remove(each)
    assert not left
