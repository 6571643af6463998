"""The engines of `side_by_side.py`: how each is had, and how it is started.

Peers are in `peers/NAME`, each written as its own users would, with its configuration and its versions beside it. Those
of Python get a venv of their own, those of Java their jars and a class folder, all of it in `.ashi/peers`, once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
MADE = Path(__file__).parent.parent / ".ashi" / "peers"
PER_EVENT = Path(__file__).with_name("per_event.py")
INSTALL_S = 900.0


class MissingError(Exception):
    """An engine cannot be had here; why, in words."""


@dataclass(frozen=True)
class Launch:
    """How a process of an engine is started. `{state}` in an argument stands for a folder of its own."""

    argv: Sequence[str]
    before: Sequence[Sequence[str]] = ()
    """Commands that are run before it, each to its end."""
    cwd: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Engine:
    """One row of the comparison."""

    name: str
    prepare: Callable[[], Launch]
    """Gets what it needs. Raises MissingError."""
    parallelism: int = 1
    workers: int = 1
    """Processes."""
    is_ashi: bool = False
    changelogs: Sequence[str] = ()
    """Topics that must be there, which the engine does not make itself."""


def _tail(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def _run(what: str, argv: Sequence[str]) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingError(f"{what}: {error}") from error
    if done.returncode:
        raise MissingError(f"{what}: {_tail(done.stderr or done.stdout)}")


def python_of(name: str) -> Path:
    """The Python of a peer's venv, which is made if what it requires has changed. Raises MissingError."""
    required = (PEERS / name / "requirements.txt").read_text()
    home = MADE / name
    stamp = home / "requirements.txt"
    python = home / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != required:
        venv.create(home, with_pip=True, clear=True)
        command = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
        ]
        _run(f"pip cannot install {name}", [*command, "--requirement", str(PEERS / name / "requirements.txt")])
        stamp.write_text(required)
    return python


def jars_of(name: str) -> list[Path]:
    """A peer's jars, downloaded once. Raises MissingError."""
    coordinates = "+".join((PEERS / name / "jars.txt").read_text().split())
    listed = MADE / name / "jars.json"
    if listed.exists():
        known = json.loads(listed.read_text())
        if known["coordinates"] == coordinates and all(Path(jar).is_file() for jar in known["jars"]):
            return [Path(jar) for jar in known["jars"]]
    import jgo

    before = os.environ.get("M2_REPO")
    os.environ["M2_REPO"] = str(MADE / "maven")
    try:
        jars = [Path(artifact.resolve()) for artifact in jgo.resolve(coordinates)]
    except Exception as error:  # what jgo raises is not documented
        raise MissingError(f"its jars cannot be had: {_tail(str(error))}") from error
    finally:
        if before is None:
            del os.environ["M2_REPO"]
        else:
            os.environ["M2_REPO"] = before
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_text(json.dumps({"coordinates": coordinates, "jars": [str(jar) for jar in jars]}))
    return jars


def java(name: str, configuration: str) -> Callable[[], Launch]:
    """A peer in Java, which is told where its configuration is."""

    def prepare() -> Launch:
        javac = shutil.which("javac")
        if javac is None:
            raise MissingError("no javac here; install a JDK of Java 17 or newer")
        folder, classes = PEERS / name, MADE / name / "classes"
        path = os.pathsep.join(map(str, jars_of(name)))
        _run("it does not compile", [javac, "-d", str(classes), "-cp", path, str(folder / "Candles.java")])
        program = Path(javac).resolve().with_name("java")
        arguments = [f"@{folder / 'jvm.options'}", "-cp", f"{classes}{os.pathsep}{path}", "Candles"]
        return Launch([str(program), *arguments, str(folder / configuration)])

    return prepare


def python(name: str) -> Callable[[], Launch]:
    """A peer that is a script."""
    return lambda: Launch([str(python_of(name)), str(PEERS / name / "candles.py")])


def _bytewax() -> Launch:
    program = str(python_of("bytewax"))
    return Launch(
        [program, "-m", "bytewax.run", "candles:flow", "-r", "{state}", "-s", "10", "-b", "0"],
        before=[[program, "-m", "bytewax.recovery", "{state}", "1"]],
        cwd=PEERS / "bytewax",
    )


def _ashi(native: str) -> Callable[[], Launch]:
    return lambda: Launch(
        [sys.executable, "-m", "ashi_cli.main", "aggregate"], environment={"ASHI_NATIVE_FOLD": native}
    )


def _faust() -> Launch:
    # Of the same version as Ashi's, so that this process's own Python has it.
    return Launch([sys.executable, str(PER_EVENT), "worker", "--without-web"])


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("ashi", _ashi("on"), is_ashi=True),
        Engine("ashi x2", _ashi("on"), workers=2, is_ashi=True),
        Engine("ashi-python", _ashi("off"), is_ashi=True),
        Engine("flink", java("flink", ".")),
        Engine("flink x2", java("flink", "."), parallelism=2),
        Engine("kafka-streams", java("kafka_streams", "streams.properties")),
        Engine("kafka-streams x2", java("kafka_streams", "streams.properties"), parallelism=2),
        Engine("chdb", python("chdb")),
        Engine("bytewax", _bytewax),
        Engine("quix", python("quix")),
        Engine("faust", _faust, changelogs=[f"per-event-per-event-{name}-changelog" for name in ("1m", "5m", "1h")]),
    )
}
"""`x2`: with a parallelism, threads or workers of two. All read with one otherwise."""
