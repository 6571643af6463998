"""compose.yaml: as the specification of Compose allows, and in agreement with the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from manifests import ROOT

from ashi import __version__
from ashi.runtime.service import SHUTDOWN_BOUND_S
from ashi.runtime.settings import Settings
from ashi.runtime.settings.catalogue import CATALOGUE
from ashi.runtime.settings.parsers import parse_duration
from ashi_cli.commands import ASHI
from ashi_cli.parser import read_command_line

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("ashi:")}
WORKERS = {name: service for name, service in OURS.items() if service["restart"] == "unless-stopped"}
ONCE = {"topics", "migrate"}
KNOWN = {each.variable for each in CATALOGUE} | {f"{each.variable}_FILE" for each in CATALOGUE if each.secret}


def test_it_is_as_the_specification_allows() -> None:
    schema = json.loads((ROOT / "tests/deploy/schemas/compose-spec.json").read_text(encoding="utf-8"))
    jsonschema.validate(COMPOSE, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**COMPOSE, "services": {"chart": {"imag": "x"}}}, schema)


def test_all_stages_and_what_they_need_are_there() -> None:
    needed = {"kafka", "postgres", "prometheus", "alertmanager", "grafana"}
    assert set(OURS) == {"topics", "migrate", "ingest", "aggregate", "sink", "strategy", "chart"}
    assert set(SERVICES) == needed | set(OURS)
    assert OURS["aggregate"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_says_whether_it_is_healthy(name: str) -> None:
    assert (SERVICES[name]["healthcheck"] == {"disable": True}) == (name in ONCE)


@pytest.mark.parametrize("name", OURS)
def test_commands_and_settings_are_those_of_the_code(name: str, tmp_path: Path) -> None:
    service = OURS[name]
    read_command_line(ASHI, __version__, service["command"])
    given = {key: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for key, value in service.get("environment", {}).items()}
    assert given.keys() <= KNOWN
    assert given["ASHI_KAFKA_BOOTSTRAP"] == "kafka:9092"
    for key, value in given.items():
        if key.endswith("_FILE"):
            secret = COMPOSE["secrets"][Path(value).name]
            assert Path(value).name in service["secrets"]
            given[key] = str(DEPLOY / secret["file"])
    settings = Settings.from_environment(given)
    assert f":{settings.metrics_port}/ready" in COMPOSE["x-ashi"]["healthcheck"]["test"][-1]
    if name == "chart":
        assert service["ports"] == [f"127.0.0.1:{settings.chart_port}:{settings.chart_port}"]


@pytest.mark.parametrize("name", OURS)
def test_our_containers_may_do_little_and_have_time_to_end(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert parse_duration(service["stop_grace_period"]) > (SHUTDOWN_BOUND_S + 5) * 1_000_000


def test_ports_are_open_to_this_machine_alone() -> None:
    assert all(port.startswith("127.0.0.1:") for service in SERVICES.values() for port in service.get("ports", ()))


def test_files_that_are_mounted_are_there() -> None:
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    sources = [DEPLOY / volume.split(":")[0] for volume in volumes if volume.startswith(".")]
    assert len(sources) == 6
    assert [path for path in sources if not path.exists()] == []


def test_prometheus_asks_every_worker_by_the_jobs_of_the_alerts() -> None:
    told = yaml.safe_load((DEPLOY / "compose/prometheus.yaml").read_text(encoding="utf-8"))
    known = yaml.safe_load((DEPLOY / "monitoring/prometheus.yaml").read_text(encoding="utf-8"))
    assert [job["job_name"] for job in told["scrape_configs"]] == [job["job_name"] for job in known["scrape_configs"]]
    found = {name for job in told["scrape_configs"] for target in job["dns_sd_configs"] for name in target["names"]}
    assert found == set(WORKERS)
    ports = {target["port"] for job in told["scrape_configs"] for target in job["dns_sd_configs"]}
    assert ports == {int(COMPOSE["x-ashi"]["environment"]["ASHI_METRICS_PORT"])}
    assert told["global"] == known["global"]
    assert told["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == ["alertmanager:9093"]


@pytest.mark.outside
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus")
def test_promtool_takes_the_configuration_of_prometheus(tmp_path: Path) -> None:
    for path in ("compose/prometheus.yaml", "monitoring/rules/ashi.rules.yaml"):
        target = tmp_path / path.partition("/")[2]
        target.parent.mkdir(exist_ok=True)
        shutil.copy(DEPLOY / path, target)
    done = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yaml"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
