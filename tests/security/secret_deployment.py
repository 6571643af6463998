"""A whole deployment on the secured Kafka: a process for each stage, each with its own user and secrets."""

from __future__ import annotations

import base64
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from servers.postgres import PASSWORD as OF_DATABASE
from servers.secured_kafka import PASSWORD, SecuredKafka
from servers.stages import Stage, get

if TYPE_CHECKING:
    import trustme

MARKET = "BTCUSDT"
SYMBOL = f"binance:{MARKET}"
NEXT_PASSWORD = "next-of-"
API_KEY = "canary-of-the-venue-1f7"
TOKEN = "canary-of-the-chart-1f7"
SECRETS = (PASSWORD, NEXT_PASSWORD, API_KEY, TOKEN, OF_DATABASE)
"""All that nobody is to see. Of the passwords in Kafka what they begin with: the rest is the user's name."""


def until(what: str, condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Wait until it holds; what it did not come to is said by the error."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.1)


class Deployment:
    """Stages that run, and the files of their secrets, which all of them share but for the password."""

    def __init__(self, kafka: SecuredKafka, folder: Path) -> None:
        self.kafka = kafka
        self.folder = folder
        self.stages: dict[str, Stage] = {}
        self.trust(kafka.authority)
        self.write_certificate(kafka.authority)

    def environment(self, user: str) -> dict[str, str]:
        """How a user reaches Kafka: by TLS, a certificate of its own and a password, all of them in files."""
        given = self.kafka.by_scram(user, "SCRAM-SHA-512", "BOTH")
        password = self.folder / f"{user}.password"
        if not password.exists():
            password.write_text(given["ASHI_KAFKA_PASSWORD"] + "\n")
        del given["ASHI_KAFKA_PASSWORD"]
        return given | {
            "ASHI_KAFKA_PASSWORD_FILE": str(password),
            "ASHI_KAFKA_CA_FILE": str(self.folder / "ca.pem"),
            "ASHI_KAFKA_CERT_FILE": str(self.folder / "cert.pem"),
            "ASHI_KAFKA_KEY_FILE": str(self.folder / "key.pem"),
            "ASHI_TIMEFRAMES": "1s",
        }

    def start(self, user: str, *arguments: str, **env: str) -> Stage:
        """Start a stage as a user, which tells all that it can tell."""
        given = {
            "ASHI_LOG_LEVEL": "debug",
            "ASHI_LOG_FORMAT": "json",
            "ASHI_QUIET_CLOSE": "on",
            **self.environment(user),
            **env,
        }
        self.stages[user] = Stage(self.kafka.open, self.folder / f"{user}.log", arguments, given)
        return self.stages[user]

    # What others rotate.

    def trust(self, *authorities: trustme.CA) -> None:
        """The brokers' certificates are to be of these."""
        _replace(self.folder / "ca.pem", b"".join(each.cert_pem.bytes() for each in authorities))

    def write_certificate(
        self, authority: trustme.CA, not_after: datetime | None = None, *, half: bool = False
    ) -> None:
        """A new certificate and key for all; `half`: only the key has come as yet."""
        issued = authority.issue_cert("worker.example", not_after=not_after)
        _replace(self.folder / "key.pem", issued.private_key_pem.bytes())
        if not half:
            _replace(self.folder / "cert.pem", b"".join(each.bytes() for each in issued.cert_chain_pems))

    def change_passwords(self, users: Iterable[str]) -> None:
        """Another password for each, in Kafka and then in the files."""
        self.kafka.let_in(users, NEXT_PASSWORD)
        for user in users:
            _replace(self.folder / f"{user}.password", (NEXT_PASSWORD + user).encode())

    # What can be seen of the processes.

    def get(self, user: str, path: str = "/metrics") -> str:
        """What it answers."""
        try:
            _, text = get(self.stages[user].address + path)  # one that is not ready says why
        except OSError as error:
            said = [line for line in self.stages[user].log.read_text().splitlines() if '"level":"debug"' not in line]
            raise AssertionError("\n".join([f"{user} does not answer: {error}", *said[-20:]])) from error
        return text

    def values(self, metric: str) -> dict[str, float | None]:
        """Of each stage the value of a metric, with its labels as it is served."""
        pattern = re.compile(rf"^{re.escape(metric)} (\S+)$", re.MULTILINE)
        found = {user: pattern.search(self.get(user)) for user in self.stages}
        return {user: None if match is None else float(match[1]) for user, match in found.items()}

    def require_alive(self) -> None:
        """Every stage still runs."""
        for user, stage in self.stages.items():
            assert stage.process.poll() is None, f"{user} has ended: {stage.log.read_text()[-3000:]}"


def _replace(path: Path, content: bytes) -> None:
    """As whoever renews secrets does it: whole or not at all."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.rename(path)


def seen_of_process(pid: int) -> dict[str, str]:
    """What everybody on a machine sees of a process: its command line and its name."""
    folder = Path("/proc", str(pid))
    return {
        str(folder / name): (folder / name).read_bytes().replace(b"\0", b" ").decode(errors="replace")
        for name in ("cmdline", "comm", "status", "stat")
    }


def spellings(secret: str) -> set[str]:
    """How a secret may stand in a text."""
    raw = secret.encode()
    written = {
        secret,
        urllib.parse.quote(secret),
        urllib.parse.quote(secret, safe=""),
        raw.hex(),
        json.dumps(secret)[1:-1],
    }
    # In base64 the three ways that it may begin within something longer, without what its neighbours change.
    shifted = {base64.b64encode(b"x" * shift + raw)[4 if shift else 0 : -4].decode() for shift in range(3)}
    return written | {each for each in shifted if len(each) > 7}


def secrets_in(texts: Mapping[str, str], secrets: Iterable[str] = SECRETS) -> list[tuple[str, str, str]]:
    """Where which secret stands, with what is around it."""
    return [
        (place, secret, text[max(at - 200, 0) : at + 100])
        for place, text in texts.items()
        for secret in secrets
        for spelling in spellings(secret)
        if (at := text.find(spelling)) >= 0
    ]
