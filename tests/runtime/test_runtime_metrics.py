from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from ashi.runtime.metrics import aggregate, chart, common, ingest, sink, strategy
from ashi.runtime.metrics.declare import CATALOGUE, REGISTRY, Histogram
from ashi.runtime.metrics.document import metrics_document

ROOT = Path(__file__).parents[2]
ALLOWED_LABELS = {
    "epoch",
    "kind",
    "outcome",
    "partition",
    "reason",
    "sink",
    "stage",
    "state",
    "strategy",
    "timeframe",
    "timeframes",
    "topic",
    "venue",
    "version",
}


def test_the_document_of_the_metrics_is_up_to_date() -> None:
    assert (ROOT / "docs/metrics.md").read_text(encoding="utf-8") == metrics_document(), (
        "run: python -m ashi.runtime.metrics > docs/metrics.md"
    )


STAGES = {"all": common, "ingest": ingest, "aggregate": aggregate, "sink": sink, "strategy": strategy, "chart": chart}


def test_every_metric_of_a_module_is_in_the_catalogue_under_its_own_name_and_stage() -> None:
    attributes = {
        (stage, name)
        for stage, module in STAGES.items()
        for name, value in inspect.getmembers(module)
        if isinstance(value, MetricWrapperBase)
    }
    catalogued = {(entry.stage, entry.name.removeprefix("ashi_").removesuffix("_total")) for entry in CATALOGUE}
    assert attributes == catalogued


@pytest.mark.parametrize(
    ("stage", "module"),
    [
        ("ingest", "ashi_ingest.worker"),
        ("aggregate", "ashi_aggregate.worker"),
        ("sink", "ashi_sinks.worker"),
        ("strategy", "ashi_strategies.live.worker"),
        ("chart", "ashi_chart.worker"),
    ],
)
@pytest.mark.processes
def test_a_process_serves_the_metrics_of_its_own_stage_and_of_no_other(stage: str, module: str) -> None:
    program = (
        f"import {module}; from prometheus_client import generate_latest; "
        "from ashi.runtime.metrics.declare import REGISTRY; print(generate_latest(REGISTRY).decode())"
    )
    served = subprocess.run([sys.executable, "-P", "-c", program], check=True, capture_output=True, text=True).stdout
    names = {line.split()[2] for line in served.splitlines() if line.startswith("# TYPE ashi_")}
    named = {entry.name for entry in CATALOGUE if entry.stage in {stage, "all"}}
    assert {name for name in names if not name.endswith("_created")} == named


def test_the_registry_serves_the_names_of_the_catalogue() -> None:
    text = generate_latest(REGISTRY).decode()
    for entry in CATALOGUE:
        assert f"# TYPE {entry.name} {entry.kind}\n" in text


def test_names_and_labels_keep_the_rules() -> None:
    for entry in CATALOGUE:
        assert entry.name.startswith("ashi_")
        assert entry.name.endswith("_total") == (entry.kind == "counter")
        assert set(entry.labels) <= ALLOWED_LABELS
        assert entry.text.endswith(".")


def test_many_observations_of_one_value_are_as_that_many_single_ones() -> None:
    registry = CollectorRegistry()
    buckets = (0.1, 1.0, 10.0)
    at_once = Histogram("at_once", "text", ["kind"], registry=registry, buckets=buckets)
    singly = Histogram("singly", "text", ["kind"], registry=registry, buckets=buckets)
    for value, count in ((0.05, 3), (0.1, 2), (0.5, 1), (10.0, 4), (11.0, 5)):
        at_once.labels("x").observe_many(value, count)
        for _ in range(count):
            singly.labels("x").observe(value)

    def samples(name: str) -> list[object]:
        found = next(family for family in registry.collect() if family.name == name)
        return [
            (sample.name.removeprefix(name), sample.labels, pytest.approx(sample.value))
            for sample in found.samples
            if not sample.name.endswith("_created")
        ]

    assert samples("at_once") == samples("singly")


def test_the_process_itself_is_measured() -> None:
    text = generate_latest(REGISTRY).decode()
    assert "process_resident_memory_bytes" in text
    assert "python_info" in text
