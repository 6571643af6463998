"""Every command that meets a Kafka which does not let it in ends within seconds, and says why."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

import ashi_ingest
from ashi_cli.main import main

if TYPE_CHECKING:
    from servers.secured_kafka import SecuredKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

RECORDING = Path(ashi_ingest.__file__).parent / "recording/bundled/bitflyer-20211212.txt.gz"
BOUND_S = 15.0
"""A login that is refused takes one round; the machine may be busy."""
COMMANDS = {
    "ingest": "ingest binance BTCUSDT",
    "replay": f"ingest replay --venue bitflyer {RECORDING}",
    "backfill": "ingest backfill binance BTCUSDT --from 2026-01-01T00:00:00Z --to 2026-01-01T00:01:00Z",
    "aggregate": "aggregate",
    "reconfigure": "aggregate reconfigure",
    "sink": "sink sqlite",
    "sink-trades": "sink lake --topic trades",
    "strategy": "strategy run ma_cross --symbol binance:BTCUSDT",
    "chart": "chart --port 0",
    "topics-create": "topics create",
    "topics-check": "topics check",
    "status": "status --once",
    "doctor": "doctor",
    "topics-grow": "topics grow --partitions 9",
    "verify": "verify --trades",
    "export": "history export --into exported",
    "load": f"history load --symbol bitflyer:BTC_JPY {RECORDING}",
    "publish": "lake publish",
    "rebuild": "rebuild --from 2026-01-01T00:00:00Z --to 2026-01-01T00:01:00Z",
}
CAUSES = {
    "wrong-password": "refuses the login of 'ashi'",
    "unknown-user": "refuses the login of 'nobody'",
    "untrusted": "shows a certificate that is not trusted",
    "expired": "shows a certificate that has expired",
    "another-name": "shows a certificate for another name than '127.0.0.1'",
}

OFTEN = {"wrong-password", "untrusted"}
"""The others differ in the answer alone, which `test_refused_by_kafka.py` of the runtime reads: `make test-outside`."""


def environment(kafka: SecuredKafka, cause: str, folder: Path) -> dict[str, str]:
    """Of somebody who is not let in, or should not go in, for this cause."""
    right = kafka.by_scram("ashi", "SCRAM-SHA-512")
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    over_tls = {name: value for name, value in right.items() if "SASL" not in name and "PASSWORD" not in name}
    over_tls.pop("ASHI_KAFKA_USERNAME")
    over_tls["ASHI_KAFKA_SECURITY_PROTOCOL"] = "SSL"
    return {
        "wrong-password": right | {"ASHI_KAFKA_PASSWORD": "not-the-s3cret"},
        "unknown-user": right | {"ASHI_KAFKA_USERNAME": "nobody"},
        "untrusted": right | {"ASHI_KAFKA_CA_FILE": str(folder / "other.pem")},
        "expired": over_tls | {"ASHI_KAFKA_BOOTSTRAP": kafka.at("EXPIRED")},
        "another-name": over_tls | {"ASHI_KAFKA_BOOTSTRAP": kafka.at("ELSEWHERE")},
    }[cause]


@pytest.mark.parametrize(
    "cause", [pytest.param(cause, marks=[] if cause in OFTEN else [pytest.mark.outside]) for cause in CAUSES]
)
def test_a_command_that_is_not_let_in_ends_within_seconds_with_the_cause(
    secured: SecuredKafka,
    cause: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment(secured, cause, tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    wrong = {}
    for name, command in COMMANDS.items():
        monkeypatch.setenv(
            "ASHI_STORAGE", f"lake://{tmp_path}/lake" if "lake" in command else f"sqlite:///{tmp_path}/c.db"
        )
        began_s = time.monotonic()
        status = main(command.split())
        took_s = time.monotonic() - began_s
        said = "".join(capsys.readouterr())
        if status == 0 or took_s > BOUND_S or CAUSES[cause] not in said or "Traceback" in said or "s3cret" in said:
            wrong[name] = (status, round(took_s, 1), said[-600:])
    assert not wrong
