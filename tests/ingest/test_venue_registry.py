"""The registry is the only place that lists venues, and every venue of it is certified."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from venue_certification import KlineCertification, VenueCertification, certified

from ashi.runtime.settings import Settings
from ashi.runtime.settings.declare import Secret
from ashi_ingest import venues
from ashi_ingest.venues.registry import KLINE_VENUES, VENUES

ROOT = Path(__file__).parents[2]
FOLDER = Path(venues.__path__[0])
SHARED = {"answers", "base", "by_time", "parsing", "trade_columns", "trade_file"}
"""What a venue's folder may import of `ashi_ingest.venues` besides itself."""
SOURCES = ("ashi", "ingest/ashi_ingest", "aggregate", "sinks", "audit", "history", "cli")
"""All but the simulator: it shares nothing with the venues and knows by itself which it simulates."""
RECORDINGS = Path("ingest/ashi_ingest/recording/bundled/__init__.py")
"""Files of data, by whose they are."""


def folders() -> set[str]:
    return {path.parent.name for path in FOLDER.glob("*/__init__.py")}


def imports_of(path: Path) -> Iterator[list[str]]:
    """The modules that a file imports, each as its parts."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for name in node.names:
                yield [*node.module.split("."), name.name]
        elif isinstance(node, ast.Import):
            for name in node.names:
                yield name.name.split(".")


def test_the_registered_venues_and_the_certified_are_the_same() -> None:
    assert certified().keys() == VENUES.keys()
    with_klines = {name for name, subclass in certified().items() if issubclass(subclass, KlineCertification)}
    assert with_klines == set(KLINE_VENUES)


def test_each_venue_stands_under_its_own_name_with_a_title_of_its_own() -> None:
    assert all(name == venue.name for name, venue in VENUES.items())
    assert len({venue.title for venue in VENUES.values()}) == len(VENUES)
    assert set(KLINE_VENUES) <= set(VENUES)


def test_the_api_key_of_a_venue_is_a_secret_setting_of_its_own() -> None:
    keys = [venue.api_key for venue in VENUES.values() if venue.api_key is not None]
    assert keys, "Binance USD-M has one"
    for key in keys:
        assert Settings.from_environment({key.setting: "k3y"}).secret(key.setting) == Secret("k3y")
        assert Settings.from_environment({}).secret(key.setting) is None


@pytest.mark.parametrize("folder", sorted(folders()))
def test_a_venue_knows_nothing_of_another_and_of_the_registry(folder: str) -> None:
    for path in (FOLDER / folder).glob("*.py"):
        for parts in imports_of(path):
            if parts[:2] == ["ashi_ingest", "venues"]:
                assert parts[2] in SHARED | {folder}, f"{path} imports {'.'.join(parts)}"
            else:
                assert parts[0] != "ashi_ingest", f"{path} imports {'.'.join(parts)}"


def test_whoever_needs_a_venue_asks_the_registry() -> None:
    for source in SOURCES:
        for path in (ROOT / source).rglob("*.py"):
            if FOLDER in path.parents and (path.parent != FOLDER or path.stem == "registry"):
                continue
            for parts in imports_of(path):
                assert parts[:2] != ["ashi_ingest", "venues"] or parts[2] not in folders(), path


def test_no_code_but_a_venues_own_depends_on_a_venues_name() -> None:
    for source in SOURCES:
        for path in (ROOT / source).rglob("*.py"):
            if path.relative_to(ROOT) == RECORDINGS or (FOLDER in path.parents and path.parent != FOLDER):
                continue
            texts = {node.value for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Constant)}
            assert texts.isdisjoint(VENUES), f"{path} names {texts & VENUES.keys()}: put it into a description"


def test_every_test_of_the_suite_stands_on_a_card_and_every_card_has_its_test() -> None:
    document = (ROOT / "docs" / "adding-a-venue.md").read_text(encoding="utf-8")
    cards = re.findall(
        r"^\| ([0-9]+) \| [^|]+ \| ([^|]+) \|$", document[document.index("## The cards") :], re.MULTILINE
    )
    assert [int(number) for number, _ in cards] == list(range(1, len(cards) + 1))
    named = [f"test_{name}" for _, tests in cards for name in re.findall(r"`(\w+)`", tests)]
    suite = {
        name for part in (VenueCertification, KlineCertification) for name in dir(part) if name.startswith("test_")
    }
    assert sorted(named) == sorted(suite)
