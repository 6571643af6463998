from __future__ import annotations

import inspect
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.metrics import MetricWrapperBase

from ashi.runtime.metrics import catalogue as metrics

ROOT = Path(__file__).parents[2]
ALLOWED_LABELS = {"venue", "outcome", "state", "stage", "reason", "partition", "timeframe", "kind", "sink"}


def test_the_document_of_the_metrics_is_up_to_date() -> None:
    assert (ROOT / "docs/metrics.md").read_text(encoding="utf-8") == metrics.metrics_document(), (
        "run: python -m ashi.runtime.metrics.catalogue > docs/metrics.md"
    )


def test_every_metric_of_the_module_is_in_the_catalogue_under_its_own_name() -> None:
    attributes = {name for name, value in inspect.getmembers(metrics) if isinstance(value, MetricWrapperBase)}
    catalogued = {entry.name.removeprefix("ashi_").removesuffix("_total") for entry in metrics.CATALOGUE}
    assert attributes == catalogued


def test_the_registry_serves_the_names_of_the_catalogue() -> None:
    text = generate_latest(metrics.REGISTRY).decode()
    for entry in metrics.CATALOGUE:
        assert f"# TYPE {entry.name} {entry.kind}\n" in text


def test_names_and_labels_keep_the_rules() -> None:
    for entry in metrics.CATALOGUE:
        assert entry.name.startswith("ashi_")
        assert entry.name.endswith("_total") == (entry.kind == "counter")
        assert set(entry.labels) <= ALLOWED_LABELS
        assert entry.text.endswith(".")


def test_the_process_itself_is_measured() -> None:
    text = generate_latest(metrics.REGISTRY).decode()
    assert "process_resident_memory_bytes" in text
    assert "python_info" in text
