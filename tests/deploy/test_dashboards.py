"""The dashboards of Grafana: as their program makes them, of metrics that there are, each panel with data behind it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from aiohttp import ClientSession

from ashi.runtime.metrics import document  # noqa: F401  (importing it declares every metric)
from ashi.runtime.metrics.declare import CATALOGUE
from ashi_cli.onemachine.broker import Broker
from rig.watchers import Watchers, needs_watchers, watching
from servers.monitored_pipeline import MARKETS, Pipeline, running_pipeline
from waits import until

MONITORING = Path(__file__).parents[2] / "deploy/monitoring"
STAGES = ("ingest", "aggregate", "sink", "strategy", "chart")


def program() -> ModuleType:
    """`make_dashboards.py`, which is in no package."""
    spec = importlib.util.spec_from_file_location("make_dashboards", MONITORING / "make_dashboards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MADE = program()
NAMES = sorted(MADE.DASHBOARDS)


def queries(name: str) -> list[tuple[str, str]]:
    """The panels of a dashboard as it stands in its file, each with one of its expressions."""
    loaded: dict[str, Any] = json.loads((MONITORING / f"dashboards/{name}.json").read_text(encoding="utf-8"))
    found = []
    for panel in loaded["panels"]:
        for each in (panel, *panel.get("panels", ())):
            found += [(each["title"], target["expr"]) for target in each.get("targets", ())]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_is_as_its_program_makes_it(name: str) -> None:
    written = (MONITORING / f"dashboards/{name}.json").read_text(encoding="utf-8")
    assert written == MADE.make(name), "run: python deploy/monitoring/make_dashboards.py"


def test_there_is_no_dashboard_that_nobody_makes() -> None:
    assert sorted(path.stem for path in (MONITORING / "dashboards").iterdir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_in_a_dashboard_is_one_that_a_process_serves_or_a_rule_records(name: str) -> None:
    known = {metric.name for metric in CATALOGUE}
    rules = yaml.safe_load((MONITORING / "rules/ashi.rules.yaml").read_text(encoding="utf-8"))
    recorded = {rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule}
    for panel, expression in queries(name):
        used = {re.sub(r"_(bucket|count|sum)$", "", each) for each in re.findall(r"\bashi_\w+", expression)}
        assert used <= known, panel
        assert set(re.findall(r"\bashi:\w+(?::\w+)*", expression)) <= recorded, panel


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_is_of_the_chosen_namespace(name: str) -> None:
    for panel, expression in queries(name):
        metrics = re.findall(r"\b(?:ashi|process)[_:][a-z0-9_:]+(\{[^}]*\})?", expression)
        assert metrics, panel
        assert all(selector.endswith('namespace=~"$namespace"}') for selector in metrics), (panel, expression)


@pytest.fixture(scope="module")
def pipeline(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with running_pipeline(kafka.bootstrap, tmp_path_factory.mktemp("pipeline")) as running:
        yield running


@pytest.fixture(scope="module")
def watchers(pipeline: Pipeline) -> Iterator[Watchers]:
    targets = {f"ashi-{stage}": [pipeline.address(stage)] for stage in STAGES}
    with watching(pipeline.folder / "watchers", targets, factor=1.0) as made:
        until("all stages are scraped", lambda: made.healthy_targets() == len(STAGES), 60)
        yield made


@pytest.mark.kafka
@pytest.mark.processes
@pytest.mark.outside
@pytest.mark.timeout(240)
@needs_watchers
def test_every_panel_has_data_of_a_pipeline_at_work(pipeline: Pipeline, watchers: Watchers) -> None:
    wanted = {(name, panel, expression) for name in NAMES for panel, expression in queries(name)}

    def lacking() -> set[tuple[str, str, str]]:
        nonlocal wanted
        wanted = {each for each in wanted if not has_data(watchers, each[2])}
        return wanted

    try:
        asyncio.run(look_at_the_page(pipeline, lambda: until("every panel has data", lambda: not lacking(), 120, 2.0)))
    except AssertionError:
        pytest.fail(f"no data: {sorted(wanted)}")


def has_data(watchers: Watchers, expression: str) -> bool:
    found = watchers.query(expression.replace("$__rate_interval", "20s").replace("$namespace", ".*"))
    return any(each["value"][1] != "NaN" for each in found)


async def look_at_the_page(pipeline: Pipeline, meanwhile: Callable[[], None]) -> None:
    """Somebody has the page of a series open, so that there is something to be counted."""
    stage = pipeline.stages["chart"]
    stage.wait_for("the chart is served")
    address = re.search(r'"(http://127\.0\.0\.1:\d+/)"', stage.log.read_text())
    assert address is not None, stage.log.read_text()
    async with ClientSession() as session, session.ws_connect(f"{address[1]}ws") as socket:
        await socket.send_json({"op": "series", "symbol": f"binance:{MARKETS[0]}", "timeframe": "1s", "bars": 10})
        waiting = asyncio.create_task(asyncio.to_thread(meanwhile))
        while not waiting.done():
            with suppress(TimeoutError):
                await socket.receive(timeout=1)
        await waiting
