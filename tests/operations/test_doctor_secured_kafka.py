"""`ashi doctor` at a Kafka with TLS, logins and rights."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ashi.contracts.access import sink_access
from ashi.contracts.errors import BrokerError
from ashi.contracts.topics import CANDLES, CANDLES_DEAD, FEED_GAPS, FEED_STATUS, topic_specs
from ashi.runtime.kafka.cluster.access import require_access
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi_cli.main import main
from ashi_operations.doctor.report import Check, Report
from ashi_operations.doctor.run import examine
from servers.secured_kafka import PASSWORD, SecuredKafka

pytestmark = pytest.mark.kafka

SINK = "ashi-sink-sqlite"


def the(report: Report, code: str) -> Check:
    [check] = [check for check in report.checks if check.code == code]
    return check


def run_as(secured: SecuredKafka, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return main(["doctor", *arguments])


@pytest.fixture(scope="module", name="granted")
def of_the_sink(secured: SecuredKafka) -> SecuredKafka:
    """A deployment whose sink has a user of its own, who may do what a sink does."""
    asyncio.run(create_topics(secured.open, topic_specs(4, secured.open.timeframes)))
    access = sink_access([CANDLES, FEED_GAPS, FEED_STATUS], CANDLES_DEAD, SINK)
    secured.grant("sink", access)

    async def until_known() -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    return await require_access(secured.settings("sink"), access)
                except BrokerError:
                    await asyncio.sleep(0.05)

    asyncio.run(until_known())
    return secured


def test_a_user_of_one_stage_over_tls_with_a_login(
    granted: SecuredKafka, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = granted.by_scram("sink", "SCRAM-SHA-512")
    run_as(granted, environment, monkeypatch, "--stage", "sink", "--stage", "aggregate", "--json")
    printed = capsys.readouterr().out
    report: dict[str, dict[str, str]] = {check["code"]: check for check in json.loads(printed)["checks"]}
    assert report["kafka.login"]["text"] == "Kafka lets in user 'sink'"
    assert report["kafka.certificates"]["state"] == "ok"
    assert report["access.sink"]["state"] == "ok"
    assert "access.ingest" not in report
    lacking = report["access.aggregate"]
    assert lacking["state"] == "error"
    assert "lacks Read on topic trades, DescribeConfigs on topic trades" in lacking["text"]
    add = f"kafka-acls --bootstrap-server {granted.at('SCRAM')} --add --allow-principal User:sink"
    assert f"{add} --operation Read --operation DescribeConfigs --topic trades" in lacking["command"]
    assert f"{add} --operation Read --group ashi-aggregate" in lacking["command"]
    # What he may not see is not taken for something that is wrong.
    assert report["topics.settings"]["state"] == "unknown"
    assert "--operation DescribeConfigs" in report["topics.settings"]["command"]
    assert PASSWORD not in printed


def test_a_password_that_is_wrong_is_an_error_and_is_not_shown(
    granted: SecuredKafka, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = granted.by_scram("sink", "SCRAM-SHA-512") | {"ASHI_KAFKA_PASSWORD": "not-the-s3cret"}
    storage = "postgresql://keeper:hush-hush@127.0.0.1:1/market"
    assert run_as(granted, environment, monkeypatch, "--storage", storage) == 2
    printed = capsys.readouterr().out
    assert "✗ Kafka at" in printed
    assert "refuses the login of 'sink'" in printed
    assert "env | grep '^ASHI_KAFKA_' | grep -v PASSWORD" in printed
    assert "pg_isready" in printed
    assert "postgresql://keeper:***@127.0.0.1:1/market" in printed
    assert "not-the-s3cret" not in printed
    assert "hush-hush" not in printed


@pytest.mark.parametrize(
    ("listener", "words"), [("EXPIRED", "has expired: renew it"), ("ELSEWHERE", "for another name than '127.0.0.1'")]
)
def test_a_certificate_that_is_no_good(granted: SecuredKafka, listener: str, words: str) -> None:
    report = asyncio.run(examine(granted.tls(listener), [], store=False))
    check = the(report, "kafka.certificates")
    assert check.state == "error"
    assert check.text.startswith(f"{granted.at(listener)} shows a certificate")
    assert words in check.text
    assert check.command == f"openssl s_client -connect {granted.at(listener)} -showcerts </dev/null"
    assert the(report, "kafka.login").state == "error"


def test_our_own_certificate_that_expires_soon(granted: SecuredKafka, tmp_path: Path) -> None:
    own = granted.authority.issue_cert("sink.example", not_after=datetime.now(UTC) + timedelta(days=9, hours=1))
    (tmp_path / "cert.pem").write_bytes(b"".join(each.bytes() for each in own.cert_chain_pems))
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    files = {"ASHI_KAFKA_CERT_FILE": str(tmp_path / "cert.pem"), "ASHI_KAFKA_KEY_FILE": str(tmp_path / "key.pem")}
    report = asyncio.run(examine(granted.tls("MUTUAL", **files), [], store=False))
    check = the(report, "kafka.certificates")
    assert check.state == "warning"
    assert "of ASHI_KAFKA_CERT_FILE expires in 9 days, on" in check.text
    assert the(report, "kafka.login").text == "Kafka lets in the user of the certificate"
