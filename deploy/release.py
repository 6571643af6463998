"""Builds a release twice and compares, installs it where nothing else is, and runs the demo there: `make release`.

Of the commit that is checked out, as `git archive` gives it: what is not committed is in no release. Nothing is
published. The files are left in `dist/`, with their SHA-256.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
TARGETS: Final = ("linux-x86_64", "linux-aarch64", "macos-x86_64", "macos-arm64")
"""Machines that the native fold is built for; see `aggregate/build_native.py`."""
NEWEST_MINOR_LEFT_OUT: Final = 10
"""Python 3.10 and those before."""
DEMO_EXTRAS: Final = "ingest,aggregate,sqlite,local"
BUILD_S, INSTALL_S, DEMO_S = 900, 900, 300
NOTHING_OF_OURS: Final = ("PYTHON", "VIRTUAL_ENV", "ASHI_", "JDK_")


class ReleaseError(Exception):
    """What keeps this from being a release, in a sentence."""


def run(*command: object, cwd: Path, seconds: int, **environment: str) -> str:
    """What a command prints, without what this process was told of Python and Ashi. Raises ReleaseError."""
    words = [str(word) for word in command]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(NOTHING_OF_OURS)}
    try:
        done = subprocess.run(
            words, cwd=cwd, env=clean | environment, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise ReleaseError(f"{' '.join(words)} takes longer than {seconds} s") from None
    if done.returncode:
        raise ReleaseError(f"{' '.join(words)} ends with {done.returncode}:\n{(done.stdout + done.stderr)[-3_000:]}")
    return done.stdout


def sources(folder: Path) -> Path:
    """The files of the commit, in a folder."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD"], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def build(folder: Path, made: Path, kind: str, epoch: str, **environment: str) -> Path:
    """Build one file of what is in a folder; where it is."""
    made.mkdir(parents=True, exist_ok=True)
    before = set(made.iterdir())
    run(
        sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", made,
        cwd=folder, seconds=BUILD_S, SOURCE_DATE_EPOCH=epoch, **environment,
    )  # fmt: skip
    [path] = set(made.iterdir()) - before
    return path


def build_all(work: Path, epoch: str, targets: tuple[str, ...]) -> list[Path]:
    """The sdist of the commit, and each wheel, of the commit and of the sdist. Raises ReleaseError if these differ."""
    first, again = work / "made", work / "made-again"
    tree = sources(work / "tree")
    files = [build(tree, first, "sdist", epoch)]
    with tarfile.open(files[0]) as archive:
        archive.extractall(work / "somewhere/else", filter="data")
    [unpacked] = (work / "somewhere/else").iterdir()
    same(files[0], build(sources(work / "another/tree"), again, "sdist", epoch))
    for environment in (*({"ASHI_BUILD_TARGET": target} for target in targets), {"ASHI_BUILD_NATIVE": "off"}):
        files.append(build(tree, first, "wheel", epoch, **environment))
        same(files[-1], build(unpacked, again, "wheel", epoch, **environment))
    return files


def same(path: Path, other: Path) -> None:
    """Raise ReleaseError unless two files have the same name and bytes."""
    if path.name != other.name or path.read_bytes() != other.read_bytes():
        raise ReleaseError(f"built twice, {path} and {other} are not the same")


def pythons() -> dict[str, str]:
    """The Pythons of this machine that Ashi is for, by their minor version: `{"3.11": "/usr/bin/python3.11"}`.

    Those that uv finds, and those of pyenv, whose own programs answer for the chosen version only.
    """
    uv = Path(sys.executable).with_name("uv")
    listed = run(uv, "python", "list", "--only-installed", "--output-format", "json", cwd=ROOT, seconds=60)
    found = [(one["version"], one["path"]) for one in json.loads(listed) if one["implementation"] == "cpython"]
    if shutil.which("pyenv"):
        versions = run("pyenv", "versions", "--bare", cwd=ROOT, seconds=60).split()
        folders = [run("pyenv", "prefix", version, cwd=ROOT, seconds=60).strip() for version in versions]
        found += zip(versions, (f"{folder}/bin/python" for folder in folders), strict=True)
    kept: dict[str, str] = {}
    for version, path in found:
        parts = re.fullmatch(r"3\.(\d+)\.\d+", version)  # neither a version to come nor one without the lock
        if parts and int(parts[1]) > NEWEST_MINOR_LEFT_OUT and path:
            kept.setdefault(f"3.{parts[1]}", path)
    return dict(sorted(kept.items(), key=lambda each: int(each[0].partition(".")[2])))


def try_out(wheel: Path, version: str, python: str, folder: Path) -> str:
    """Install a wheel in an environment of its own and run the demo there; what that says of the candles."""
    uv = Path(sys.executable).with_name("uv")
    venv, work = folder / "venv", folder / "work"
    work.mkdir(parents=True)
    run(uv, "venv", "--quiet", "--python", python, venv, cwd=work, seconds=INSTALL_S)
    ours = f"{wheel}[{DEMO_EXTRAS}]"
    run(uv, "pip", "install", "--quiet", "--python", venv / "bin/python", ours, cwd=work, seconds=INSTALL_S)
    ashi = venv / "bin/ashi"
    said = run(ashi, "--version", cwd=work, seconds=60).strip()
    if said != f"ashi {version}":
        raise ReleaseError(f"with {python} it says that it is {said}, and not ashi {version}")
    summary = json.loads(run(ashi, "demo", "--json", cwd=work, seconds=DEMO_S).splitlines()[-1])
    return f"{summary['candles_stored']:,} candles of {summary['trades_published']:,} trades"


def main() -> int:
    """Do all that; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", action="append", choices=TARGETS, help="build the wheel of this machine only")
    parser.add_argument("--python", action="append", help="run the demo with this Python only, such as 3.12")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="where the files are left")
    arguments = parser.parse_args()
    text = (ROOT / "ashi/__init__.py").read_text(encoding="utf-8")
    version = re.findall(r'^__version__ = "(.*)"$', text, re.MULTILINE)[0]
    try:
        release(version, tuple(arguments.target or TARGETS), arguments.python, arguments.dist)
    except ReleaseError as error:
        print(f"no release: {error}", file=sys.stderr)
        return 1
    return 0


def release(version: str, targets: tuple[str, ...], wanted: list[str] | None, dist: Path) -> None:
    """See the module. Raises ReleaseError."""
    changed = run("git", "status", "--porcelain", "--untracked-files=no", cwd=ROOT, seconds=60)
    if changed:
        print(f"not in it, as they are not committed:\n{changed}")
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or run("git", "log", "-1", "--format=%ct", cwd=ROOT, seconds=60).strip()
    found = pythons()
    chosen = found if wanted is None else {name: path for name, path in found.items() if name in wanted}
    if not chosen:
        raise ReleaseError(f"no Python of {wanted or 'from 3.11 on'} is here; there are {', '.join(found) or 'none'}")
    with tempfile.TemporaryDirectory(prefix="ashi-release-") as name:
        work = Path(name)
        files = build_all(work, epoch, targets)
        print(f"ashi-candles {version}: {len(files)} files, each built twice and the same")
        everywhere = next(path for path in files if path.name.endswith("-any.whl"))
        own = next((path for path in files if _is_own(path)), everywhere)
        for minor, python in chosen.items():
            print(f"Python {minor}: {own.name}: {try_out(own, version, python, work / f'python-{minor}')}", flush=True)
        dist.mkdir(parents=True, exist_ok=True)
        for path in files:
            shutil.copyfile(path, dist / path.name)
            print(hashlib.sha256(path.read_bytes()).hexdigest(), dist / path.name)


def _is_own(wheel: Path) -> bool:
    """Whether a wheel is for this machine alone, or for machines such as it."""
    if sys.platform == "darwin":
        return "macosx" in wheel.name and os.uname().machine in wheel.name
    return "linux" in wheel.name and os.uname().machine in wheel.name


if __name__ == "__main__":
    sys.exit(main())
