"""What Java has parsed of Kafka's classes, kept in a file, so that each broker of the tests starts with that.

A broker then computes 1.9 s instead of 3.4 s until it serves, and a run of all tests starts dozens. The file (64 MB, 11
s of a core) is made by the first of several processes that run tests, while the first tests run, and stays in `.ashi`;
brokers that start before it is there do without.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ashi.contracts.errors import BrokerError
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.broker import Broker
from ashi_cli.onemachine.children import spawn
from ashi_cli.onemachine.jars import KAFKA_VERSION, java_executable
from kafka_topics.fresh_topics import renew_topics

TESTS = Path(__file__).parents[1]
FIRST_VERSION = 25
"""Of Java, that makes such a file in one run."""
MADE_S = 120
FIRST_COMPILER = "-XX:TieredStopAtLevel=1"
"""A broker lives for seconds or minutes here, so the second compiler costs more than it gives: two fifths of all that a
broker computes."""


def java_options() -> str:
    """For JDK_JAVA_OPTIONS, which the program `java` reads; the file need not be there."""
    path = _path()
    return FIRST_COMPILER if path is None else f'{FIRST_COMPILER} "-XX:AOTCache={path}" -Xlog:aot=off'


def make_in_background() -> None:
    """Unless it is there, or this Java has no such thing."""
    path = _path()
    if path is None or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(TESTS), "JDK_JAVA_OPTIONS": FIRST_COMPILER}
    with path.with_suffix(".log").open("wb") as log:
        spawn([sys.executable, "-m", "suite.java_cache"], env=environment, stdout=log, stderr=log)


def _path() -> Path | None:
    """Where the file for this Java and this Kafka is; None when this Java makes none."""
    try:
        java = java_executable()
        release = (java.parent.parent / "release").read_text()
    except (BrokerError, OSError):
        return None
    version = release.partition('JAVA_VERSION="')[2].partition('"')[0].partition(".")[0]
    if not version.isdecimal() or int(version) < FIRST_VERSION:
        return None
    name = hashlib.sha256(f"{java} {java.stat().st_mtime_ns} {release}".encode()).hexdigest()[:12]
    return TESTS.parent / ".ashi" / "tests" / f"kafka-{KAFKA_VERSION}-java-{name}.aot"


def _make(path: Path) -> None:
    """Have a broker do what the tests have it do, and Java write down what it needed for that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        broker = Broker(Path(directory))
        broker.start(child=True, fresh=True)  # which formats its directory: a program of its own
        broker.stop()
        draft = path.with_suffix(f".{os.getpid()}")
        os.environ["JDK_JAVA_OPTIONS"] = f'{FIRST_COMPILER} "-XX:AOTCacheOutput={draft}"'
        broker.start(child=True)
        asyncio.run(renew_topics(Settings.from_environment({"ASHI_KAFKA_BOOTSTRAP": broker.bootstrap})))
        assert broker.process is not None
        broker.process.terminate()
        try:
            broker.process.wait(MADE_S)  # it is written at the end
        except subprocess.TimeoutExpired:
            broker.process.kill()
            raise
        draft.replace(path)


if __name__ == "__main__":
    made = _path()
    assert made is not None
    _make(made)
