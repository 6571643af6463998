"""Files of certificates: what is wrong with them, and that they are read again."""

from __future__ import annotations

import ssl
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from ashi.contracts.errors import UsageError
from ashi.runtime.kafka.authentication import tls
from ashi.runtime.kafka.authentication.tls import RenewedContext, make_context
from ashi.runtime.settings import Settings, SettingsError

if TYPE_CHECKING:
    from pathlib import Path


def write_certificate(authority: trustme.CA, folder: Path) -> trustme.LeafCert:
    issued = authority.issue_cert("client.example")
    (folder / "cert.pem").write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    return issued


def write(authority: trustme.CA, folder: Path) -> dict[str, str]:
    issued = write_certificate(authority, folder)
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


def authorities(context: RenewedContext) -> list[str]:
    return [each["serialNumber"] for each in context.current.get_ca_certs()]  # type: ignore[index, misc]


def written(given: dict[str, str]) -> RenewedContext:
    context = make_context(Settings.from_environment(given))
    assert isinstance(context, RenewedContext)
    return context


def test_files_are_read_again_when_they_are_replaced_and_kept_while_they_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = written(write(trustme.CA(), tmp_path))
    loads: list[object] = []
    load = RenewedContext.load

    def count(self: RenewedContext) -> None:
        loads.append(None)
        load(self)

    monkeypatch.setattr(RenewedContext, "load", count)
    [first] = authorities(context)
    connect(context)
    assert (len(loads), authorities(context)) == (0, [first])
    write(trustme.CA(), tmp_path)
    connect(context)
    connect(context)
    [second] = authorities(context)  # and the first is trusted no more
    assert (len(loads), second == first) == (1, False)
    (tmp_path / "key.pem").write_text("half a k")
    connect(context)
    assert len(loads) == 2
    (tmp_path / "key.pem").unlink()
    connect(context)
    assert authorities(context) == [second]
    write(trustme.CA(), tmp_path)
    connect(context)
    assert (len(loads), authorities(context) == [second]) == (3, False)


def test_an_authority_that_was_replaced_is_trusted_no_more(tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    context = written(write(old, tmp_path))
    shake_hands(context, old.issue_cert("kafka.example"), "kafka.example")
    new.cert_pem.write_to_path(tmp_path / "ca.pem")
    shake_hands(context, new.issue_cert("kafka.example"), "kafka.example")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"self-signed certificate|unable to get local issuer"):
        shake_hands(context, old.issue_cert("kafka.example"), "kafka.example")


HALVES = {
    "authority-cut-off": lambda files: cut(files / "ca.pem"),
    "certificate-cut-off": lambda files: cut(files / "cert.pem"),
    "certificate-before-its-key": lambda files: write_certificate(trustme.CA(), files),
    "key-gone": lambda files: (files / "key.pem").unlink(),
    "all-empty": lambda files: [(files / name).write_text("") for name in ("ca.pem", "cert.pem", "key.pem")],
    "key-with-passphrase": lambda files: lock_key(files / "key.pem"),
    "a-folder": lambda files: ((files / "ca.pem").unlink(), (files / "ca.pem").mkdir()),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def lock_key(path: Path) -> None:
    key = load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"phrase")))


@pytest.mark.parametrize("half", HALVES)
def test_a_rotation_that_is_half_done_is_told_and_changes_nothing(
    tmp_path: Path, half: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_contexts", {})
    monkeypatch.setattr(tls, "_expiries", {})
    authority = trustme.CA()
    chosen = Settings.from_environment(write(authority, tmp_path))
    context = make_context(chosen)
    server = authority.issue_cert("kafka.example")
    expiries = tls.certificate_expiries()
    assert not tls.certificates_are_behind()
    HALVES[half](tmp_path)
    shake_hands(context, server, "kafka.example")
    assert tls.certificates_are_behind()
    assert "going on with those of before" in caplog.text
    shake_hands(make_context(chosen), server, "kafka.example")  # of a client that is made meanwhile
    assert tls.certificate_expiries() == {**expiries, "broker": tls.certificate_expiries()["broker"]}
    if half == "a-folder":
        (tmp_path / "ca.pem").rmdir()
    with caplog.at_level("INFO"):
        write(authority, tmp_path)
        assert not tls.certificates_are_behind()
    assert "certificates can be read again" in caplog.text


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
