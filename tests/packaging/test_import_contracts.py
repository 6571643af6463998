"""The import contracts of pyproject.toml list modules by hand: a module that is in no list is found here."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS: list[dict[str, Any]] = PROJECT["tool"]["importlinter"]["contracts"]
PACKAGES = [ROOT / path for path in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
SAYS_PURE = re.compile(r"\bPure\b|[:;] pure\.|\bThe pure\b")


def contracts_that_forbid(module: str) -> list[dict[str, Any]]:
    return [contract for contract in CONTRACTS if module in contract.get("forbidden_modules", ())]


def contract(beginning: str) -> dict[str, Any]:
    [found] = [each for each in CONTRACTS if each["name"].startswith(beginning)]
    return found


def module_name(package: Path, path: Path) -> str:
    return ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


def modules_in(package: str) -> set[str]:
    """What is directly in a package, as `ashi_sinks.worker`."""
    [folder] = [path for path in PACKAGES if path.name == package]
    files = {f"{package}.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"}
    return files | {f"{package}.{path.parent.name}" for path in folder.glob("*/__init__.py")}


def is_covered(module: str, sources: set[str]) -> bool:
    parts = module.split(".")
    return any(".".join(parts[: count + 1]) in sources for count in range(len(parts)))


def test_every_module_that_says_it_is_pure_is_checked_to_be():
    sources = {source for contract in contracts_that_forbid("asyncio") for source in contract["source_modules"]}
    pure = {
        module_name(package, path)
        for package in PACKAGES
        for path in package.rglob("*.py")
        if SAYS_PURE.search(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
    }
    assert "ashi_ingest.feed.symbol.sequencer" in pure
    assert sorted(module for module in pure if not is_covered(module, sources)) == []


@pytest.mark.parametrize(
    ("beginning", "package", "apart"),
    [
        ("Faust lives in the aggregate stage's room", "ashi_aggregate", {"ashi_aggregate.faust"}),
        (
            "Each storage driver lives in its sink",
            "ashi_sinks",
            {"ashi_sinks.sqlite", "ashi_sinks.postgres", "ashi_sinks.lake"},
        ),
    ],
)
def test_all_but_the_rooms_of_a_library_is_forbidden_to_import_it(beginning: str, package: str, apart: set[str]):
    sources = set(contract(beginning)["source_modules"])
    others = {path.name for path in PACKAGES} - {package}
    assert sorted(sources) == sorted(others | modules_in(package) - apart)


def test_all_of_the_audit_but_the_rebuild_is_forbidden_the_native_fold():
    sources = set(contract("What candles are verified with")["source_modules"])
    assert sources == modules_in("ashi_audit") - {"ashi_audit.native_lake", "ashi_audit.rebuild"}


def test_no_store_may_import_the_driver_of_another():
    drivers = set(contract("Each storage driver lives in its sink")["forbidden_modules"])
    own = {
        "ashi_sinks.sqlite": {"sqlite3"},
        "ashi_sinks.postgres": {"asyncpg"},
        "ashi_sinks.lake": {"deltalake", "arro3"},
    }
    assert set().union(*own.values()) == drivers
    forbidden = {
        source: set(each["forbidden_modules"])
        for each in CONTRACTS
        for source in each.get("source_modules", ())
        if source in own
    }
    assert forbidden == {store: drivers - of_store for store, of_store in own.items()}
