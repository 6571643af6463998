"""Names that other programs hold on to: topics and their settings, environment variables, metrics, exit statuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from recorded import read_json

from ashi.contracts import errors, parse_timeframes, topics
from ashi.contracts.candle import CANDLE_SCHEMA
from ashi.contracts.feed import FEED_GAP_SCHEMA, FEED_STATUS_SCHEMA
from ashi.contracts.trade import TRADE_SCHEMA

RECORDED = read_json("catalogues.json")
DOCS = Path(__file__).parents[2] / "docs"


def table(name: str) -> list[list[str]]:
    """The rows of a generated document; that it is what the code says is tested where the code is."""
    lines = (DOCS / name).read_text(encoding="utf-8").splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in lines
        if line.startswith(("| `ASHI_", "| `ashi_"))
    ]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_topics_have_the_names_partitions_and_settings_they_had() -> None:
    """Changelogs too: the state of a running deployment stands in them.

    One setting has been added to all: records have the time of the broker, as those of `trades` always had. And
    `feed.status`, which has heartbeats now, and `candles.live`, which is written now, are compacted sooner. Topics that
    were made without these go on as they are, and `ashi topics check` says how to set them. `ashi topics create`
    makes those that have been added, `instruments` and `signals`.
    """
    sooner = {"segment.ms": "600000", "min.cleanable.dirty.ratio": "0.1"}
    added = {"feed.status": sooner, "candles.live": {**sooner, "segment.bytes": "16777216"}}
    specs = topics.topic_specs(2, parse_timeframes("1s,1m,1d"))
    assert all(spec.config["message.timestamp.type"] == "LogAppendTime" for spec in specs)
    recorded = [
        [name, partitions, {"message.timestamp.type": "LogAppendTime", **config, **added.get(name, {})}]
        for name, partitions, config in RECORDED["topics"]
    ]
    had = [spec for spec in specs if spec.name not in {"instruments", "signals"}]
    assert [[spec.name, spec.partitions, spec.config] for spec in had] == recorded
    assert RECORDED["application"] == topics.AGGREGATE_APP


def test_messages_name_the_schemas_they_named() -> None:
    assert RECORDED["schemas"] == [TRADE_SCHEMA, CANDLE_SCHEMA, FEED_GAP_SCHEMA, FEED_STATUS_SCHEMA]


@pytest.mark.parametrize("setting", RECORDED["settings"], ids=lambda setting: setting[0])
def test_a_setting_has_the_name_and_the_default_it_had(setting: list[Any]) -> None:
    variable, default, _, secret, when_unset, _ = setting
    rows = {quoted(names)[0]: (quoted(names), shown) for names, shown, _ in table("settings.md")}
    assert rows[variable] == (
        [variable, f"{variable}_FILE"] if secret else [variable],
        when_unset if default is None else f"`{default}`",
    )


@pytest.mark.parametrize("metric", RECORDED["metrics"], ids=lambda metric: metric[0])
def test_a_metric_has_the_name_kind_labels_and_process_it_had(metric: list[str]) -> None:
    name, stage, kind, labels, _ = metric
    rows = {quoted(named)[0]: (kind, quoted(labels), stage) for named, kind, labels, stage, _ in table("metrics.md")}
    assert rows[name] == (kind, labels, stage)


@pytest.mark.parametrize("name", [name for name in RECORDED["exit statuses"] if name[0].isupper()])
def test_an_error_ends_the_command_with_the_status_it_did(name: str) -> None:
    assert getattr(errors, name).exit_status == RECORDED["exit statuses"][name]


def test_what_is_no_error_ends_with_the_status_it_did() -> None:
    assert RECORDED["exit statuses"]["partial"] == errors.EXIT_PARTIAL
    assert RECORDED["exit statuses"]["interrupted"] == errors.EXIT_INTERRUPTED
