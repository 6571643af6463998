"""Prometheus and Alertmanager with the rules as they are deployed, all their times divided by one number."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from servers.free_ports import HOST, free_ports
from waits import until

MONITORING = Path(__file__).parents[2] / "deploy/monitoring"
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
DURATION = re.compile(r"\b(\d+)(ms|s|m|h|d)\b")
LEAST_MS = 100
"""No time is made shorter than this."""

MISSING = [each for each in ("prometheus", "prometheus-alertmanager") if shutil.which(each) is None]
needs_watchers = pytest.mark.skipif(bool(MISSING), reason=f"apt-get install {' '.join(MISSING)}")


def faster(text: str, factor: float) -> str:
    """An expression or a duration, with times so many times shorter: `[5m]`, `offset 5m`, and seconds as `2 * 60`."""

    def shortened(match: re.Match[str]) -> str:
        milliseconds = int(match[1]) * SECONDS[match[2]] * 1_000 / factor
        return f"{max(round(milliseconds), LEAST_MS)}ms"

    text = DURATION.sub(shortened, text)
    return re.sub(r"\b([\d.]+) \* 60\b", lambda match: f"{float(match[1]) * 60 / factor:g}", text)


def faster_rules(factor: float, alerts: Collection[str] | None = None) -> dict[str, Any]:
    """The rules as they are deployed, so many times faster; with `alerts` none but these."""
    loaded: dict[str, Any] = yaml.safe_load((MONITORING / "rules/ashi.rules.yaml").read_text(encoding="utf-8"))
    for group in loaded["groups"]:
        group["rules"] = [rule for rule in group["rules"] if alerts is None or rule.get("alert", "") in {"", *alerts}]
        for rule in group["rules"]:
            rule["expr"] = faster(rule["expr"], factor)
            if "for" in rule:
                rule["for"] = faster(rule["for"], factor)
    return loaded


class Notification(NamedTuple):
    """What Alertmanager sent: when (monotonic, s), to whom, and whether the alert fires."""

    at_s: float
    receiver: str
    alert: str
    fires: bool


class Watchers:
    """One Prometheus and one Alertmanager, and what the latter has sent."""

    def __init__(self, prometheus: str, alertmanager: str, sent: list[Notification]) -> None:
        self._prometheus = prometheus
        self._alertmanager = alertmanager
        self.sent = sent

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an instant query gives."""
        encoded = urllib.parse.urlencode({"query": expression})
        found: list[dict[str, Any]] = _get(f"{self._prometheus}/api/v1/query?{encoded}")["data"]["result"]
        return found

    def firing(self) -> set[str]:
        """The alerts that fire now, muted or not."""
        return {each["metric"]["alertname"] for each in self.query('ALERTS{alertstate="firing"}')}

    def healthy_targets(self) -> int:
        """How many processes answer."""
        return sum(each["value"][1] == "1" for each in self.query("up"))

    def notified(self, since_s: float, *, receiver: str | None = None) -> set[str]:
        """The alerts that somebody was told of since a time (monotonic, s)."""
        return {
            each.alert
            for each in list(self.sent)
            if each.fires and each.at_s >= since_s and receiver in {None, each.receiver}
        }

    def told_at(self, alert: str, since_s: float, *, fires: bool) -> float | None:
        """When somebody was first told since a time that an alert fires, or that it does not any more."""
        times = [each.at_s for each in list(self.sent) if (each.alert, each.fires) == (alert, fires)]
        return next((at_s for at_s in times if at_s >= since_s), None)


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


@contextmanager
def _receiver() -> Iterator[tuple[int, list[Notification]]]:
    """A webhook that remembers what it gets."""
    sent: list[Notification] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            for alert in body["alerts"]:
                name = alert["labels"]["alertname"]
                sent.append(Notification(time.monotonic(), body["receiver"], name, alert["status"] == "firing"))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, sent
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def watching(
    folder: Path, targets: Mapping[str, Sequence[str]], factor: float, alerts: Collection[str] | None = None
) -> Iterator[Watchers]:
    """Scrape targets by job every second, with rules (see `faster_rules`), waits and repeats so many times faster."""
    folder.mkdir(parents=True, exist_ok=True)
    prometheus, alertmanager = free_ports(2)
    with _receiver() as (port, sent):
        (folder / "rules.yaml").write_text(yaml.safe_dump(faster_rules(factor, alerts)))
        deployed = (MONITORING / "alertmanager.yaml").read_text(encoding="utf-8")
        deployed = deployed.replace("localhost:9099", f"{HOST}:{port}")
        waits = re.compile(r"(group_wait|group_interval|repeat_interval): (\w+)")
        (folder / "alertmanager.yaml").write_text(
            waits.sub(lambda match: f"{match[1]}: {_wait(match[2], factor)}", deployed)
        )
        (folder / "prometheus.yaml").write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "500ms"},
                    "rule_files": ["rules.yaml"],
                    "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"{HOST}:{alertmanager}"]}]}]},
                    "scrape_configs": [
                        {"job_name": job, "static_configs": [{"targets": list(addresses)}]}
                        for job, addresses in targets.items()
                    ],
                }
            )
        )
        commands = {
            "alertmanager": [
                "prometheus-alertmanager",
                "--config.file=alertmanager.yaml",
                "--storage.path=alertmanager",
                f"--web.listen-address={HOST}:{alertmanager}",
                "--cluster.listen-address=",
            ],
            "prometheus": [
                "prometheus",
                "--config.file=prometheus.yaml",
                "--storage.tsdb.path=prometheus",
                f"--web.listen-address={HOST}:{prometheus}",
                "--rules.alert.resend-delay=1s",
            ],
        }
        started: list[subprocess.Popen[bytes]] = []
        try:
            for name, command in commands.items():
                with (folder / f"{name}.log").open("wb") as log:
                    started.append(subprocess.Popen(command, cwd=folder, stdout=log, stderr=log))
            until(f"{folder}: Alertmanager is ready", partial(_is_ready, alertmanager), timeout_s=30)
            until(f"{folder}: Prometheus is ready", partial(_is_ready, prometheus), timeout_s=30)
            yield Watchers(f"http://{HOST}:{prometheus}", f"http://{HOST}:{alertmanager}", sent)
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(20)


def _wait(duration: str, factor: float) -> str:
    return faster(duration, factor) if duration != "0s" else duration


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
