"""`ashi doctor` at a real Kafka: where all is well, and where all kinds of things are not."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from deployment_in_kafka import S, at_work, heartbeats, status, write

from ashi.contracts.access import access_table
from ashi.contracts.topics import AGGREGATE_APP, CANDLES, TRADES, topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.settings import Settings
from ashi_aggregate.epoch import agree_on_epoch
from ashi_cli.main import main
from ashi_operations.doctor.report import Check, Report
from ashi_operations.doctor.run import STAGES, examine
from ashi_sinks.sqlite.sink import SqliteSink

SINK = "ashi-sink-sqlite"


def found(report: Report, code: str) -> list[Check]:
    return [check for check in report.checks if check.code == code]


def the(report: Report, code: str) -> Check:
    [check] = found(report, code)
    return check


def make_store(path: Path) -> str:
    async def scenario() -> None:
        sink = SqliteSink(path)
        await sink.open()
        await sink.close()

    asyncio.run(scenario())
    return f"sqlite:///{path}"


def test_a_deployment_that_is_well(kafka_settings: Settings, tmp_path: Path) -> None:
    settings = replace(kafka_settings, storage=make_store(tmp_path / "candles.db"))

    async def scenario() -> Report:
        await agree_on_epoch(settings)
        async with (
            at_work(settings, AGGREGATE_APP, TRADES),
            at_work(settings, SINK, CANDLES),
            heartbeats(settings, lambda: [status("binance:BTCUSDT")]),
        ):
            return await examine(settings, ["ashi sink"], store=True)

    report = asyncio.run(scenario())
    assert [check for check in report.checks if check.state not in {"ok", "skipped"}] == []
    assert report.exit == 0
    assert {check.code for check in report.checks if check.state == "skipped"} == {"kafka.certificates"}
    assert the(report, "kafka.version").text.startswith("the brokers are of Kafka 4.")
    assert the(report, "state.epoch").text.startswith("epoch 0, made with these settings: ASHI_TIMEFRAMES=1m,5m,1h")
    assert the(report, "access.sink").text == "whoever does not log in may do what `ashi sink` does"


def test_a_deployment_in_which_all_kinds_of_things_are_wrong(kafka_settings: Settings, tmp_path: Path) -> None:
    prefix = "broken."
    settings = replace(kafka_settings, topic_prefix=prefix, storage=f"sqlite:///{tmp_path}/none.db")
    specs = {spec.name: spec for spec in topic_specs(settings.partitions, settings.timeframes)}
    del specs["signals"]
    specs[CANDLES] = replace(specs[CANDLES], config=specs[CANDLES].config | {"retention.ms": "3600000"})
    specs["trades.late"] = replace(specs["trades.late"], partitions=1)
    # Kafka looks every five minutes for what has expired.
    specs[TRADES] = replace(specs[TRADES], config=specs[TRADES].config | {"retention.ms": "1000"})

    async def scenario() -> Report:
        await create_topics(settings, list(specs.values()))
        await agree_on_epoch(settings)
        await write(settings, [(TRADES, "binance:BTCUSDT", b"{}", "")])
        down = [status("gmo:BTC", "down", reason="no route")]
        async with at_work(settings, AGGREGATE_APP, TRADES, left=1), heartbeats(settings, lambda: down):
            await asyncio.sleep(1)  # so long the record waits that is kept for a second
            return await examine(replace(settings, allowed_lateness_us=5 * S), [], store=True)

    report = asyncio.run(scenario())
    assert report.exit == 2
    bad = {check.code: check for check in report.checks if check.state not in {"ok", "skipped"}}
    assert the(report, "topics.there").text == "topics are missing: broken.signals"
    assert the(report, "topics.there").command == "ashi topics create"
    assert "topic broken.trades.late has 1 partitions, not 4" in the(report, "topics.partitions").text
    settings_of_topics = {check.text.split()[1]: check.command or "" for check in found(report, "topics.settings")}
    assert set(settings_of_topics) == {"broken.candles", "broken.trades"}
    assert "--entity-name broken.candles --add-config 'retention.ms=7776000000'" in settings_of_topics["broken.candles"]
    assert bad["topics.retention"].state == "error"
    assert "group ashi-aggregate has still to read what was appended to topic trades" in bad["topics.retention"].text
    assert "--entity-name broken.trades --add-config retention.ms=604800000" in (bad["topics.retention"].command or "")
    assert bad["state.epoch"].state == "error"
    assert "this worker has ASHI_TIMEFRAMES=1m,5m,1h ASHI_ALLOWED_LATENESS=5s" in bad["state.epoch"].text
    assert "1 feed of gmo is not connected" in bad["feeds"].text
    assert "none.db does not exist" in bad["store.open"].text
    assert bad["store.open"].command == f"ashi sink sqlite --storage sqlite:///{tmp_path}/none.db"
    assert all(check.command for check in bad.values())


def test_a_deployment_that_nobody_works_in(kafka_settings: Settings) -> None:
    report = asyncio.run(examine(kafka_settings, [], store=False))
    assert the(report, "groups").command == "ashi aggregate"
    assert (the(report, "groups").state, the(report, "state.epoch").state) == ("error", "warning")
    assert the(report, "clocks").state == "unknown"
    assert the(report, "feeds").state == the(report, "store").state == "skipped"
    assert report.exit == 2


def test_an_address_of_several_that_does_not_answer(kafka_settings: Settings) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        lost = f"127.0.0.1:{nobody.getsockname()[1]}"
        settings = replace(kafka_settings, kafka_bootstrap=f"{kafka_settings.kafka_bootstrap},{lost}")
        report = asyncio.run(examine(settings, [], store=False))
    check = the(report, "kafka.reach")
    assert (check.state, check.command) == ("warning", f"nc -vz {lost.replace(':', ' ')}")
    assert the(report, "kafka.login").state == "ok"


def test_a_kafka_that_is_away_leaves_out_what_is_behind_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("ASHI_KAFKA_BOOTSTRAP", f"127.0.0.1:{nobody.getsockname()[1]}")
        assert main(["doctor", "--json", "--storage", make_store(tmp_path / "candles.db")]) == 2
    printed = capsys.readouterr()
    assert printed.err == "", "the client library says what the report says"
    checks = {check["code"]: check for check in json.loads(printed.out)["checks"]}
    assert (checks["kafka.reach"]["state"], checks["kafka.login"]["state"]) == ("error", "error")
    assert {checks[code]["state"] for code in ("access", "topics", "groups", "feeds", "clocks", "state.epoch")} == {
        "skipped"
    }
    assert checks["store.open"]["state"] == "ok"


def test_the_stages_that_can_be_named_are_those_of_the_table_of_rights(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [command for each in STAGES.values() for command in each]
    assert sorted(commands) == sorted(access_table(Settings.from_environment({}).timeframes))
    assert main(["doctor", "--stage", "sinks"]) == 2
    assert "--stage sinks: write one of ingest, replay, aggregate, sink" in capsys.readouterr().err


Ashi = Callable[..., tuple[int, str, str]]


def test_what_is_printed_is_short_where_only_what_is_bad_is_wanted(kafka_settings: Settings, ashi: Ashi) -> None:
    code, printed, _ = ashi("doctor", "--quiet")
    assert code == 2
    assert "✓" not in printed
    assert "  ✗ no aggregate worker runs; 0 trades wait\n      ashi aggregate\n" in printed
    assert printed.splitlines()[-1].startswith("1 do not work, 1 to be looked at, 1 not known")
