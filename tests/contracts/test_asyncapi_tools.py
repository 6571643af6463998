"""AsyncAPI's own parser takes the committed document, and its own component shows it, without a network."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from asyncapi_tools import DOCUMENT, PARSER, fetch, needs_node, page, parse
from playwright.sync_api import sync_playwright

from ashi.contracts.schemas.channels import CHANNELS

pytestmark = [pytest.mark.outside, pytest.mark.processes, needs_node]

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
TEXT = DOCUMENT.read_text(encoding="utf-8")
TOPICS = [channel.topic for channel in CHANNELS]


@pytest.fixture(scope="module", name="parser")
def a_parser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    [path] = fetch(PARSER, tmp_path_factory.mktemp("npm"), "browser/index.js")
    return path


def test_the_parser_has_nothing_to_say_but_that_there_is_a_newer_format(parser: Path) -> None:
    found = parse(parser, TEXT)
    assert [one for one in found["diagnostics"] if one["code"] != "asyncapi-latest-version"] == []
    assert found["channels"] == TOPICS
    assert set(found["operations"]) == json.loads(TEXT)["operations"].keys()


BROKEN: list[tuple[str, Any, str]] = [
    ("components.messages.trades.payload.$ref", "#/components/schemas/nothing", "nothing"),
    ("channels.candles.bindings.kafka.topicConfiguration.retention\\.ms", "a week", "retention"),
    ("components.schemas.ashi\\.trade\\.v1.type", "objekt", "type"),
    ("operations.sendTrades.channel.$ref", "#/channels/nothing", "nothing"),
]


@pytest.mark.parametrize(("where", "value", "said"), BROKEN)
def test_the_parser_finds_what_is_wrong(parser: Path, where: str, value: Any, said: str) -> None:
    """So that its silence means something. Examples it does not hold against schemas: `test_schemas.py` does."""
    document = json.loads(TEXT)
    *path, last = [part.replace("\0", ".") for part in where.replace("\\.", "\0").split(".")]
    inner: Any = document
    for part in path:
        inner = inner[int(part) if isinstance(inner, list) else part]
    inner[last] = value
    errors = [one for one in parse(parser, json.dumps(document))["diagnostics"] if one["severity"] == 0]
    assert any(said in f"{one['path']} {one['message']}" for one in errors), errors


@pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium: THE PAGE IS NOT LOOKED AT (apt-get install chromium)"
)
def test_the_page_shows_every_topic_and_asks_nobody(tmp_path: Path) -> None:
    made = tmp_path / "contracts.html"
    made.write_text(page(tmp_path), encoding="utf-8")
    asked: list[str] = []
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1_600, "height": 900})
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("pageerror", lambda error: faults.append(str(error)))
        shown.goto(made.as_uri())
        shown.get_by_role("heading", name="Ashi").first.wait_for()
        text = shown.locator("#asyncapi").inner_text()
        browser.close()
    assert [topic for topic in TOPICS if topic not in text] == []
    assert "ashi.candle.v1" in text
    assert [url for url in asked if not url.startswith(("data:", made.as_uri()))] == []
    assert faults == []
