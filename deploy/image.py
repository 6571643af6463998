"""Builds the image with docker, podman or buildah, whichever there is: `make image TAG=ashi:dev BASE=…`.

pip fetches what the locks name from wherever its configuration on this machine says (`pip config list`). That, and the
certificates of this machine, are secrets of the build: no layer of the image has them.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from ashi import __version__

ROOT: Final = Path(__file__).parents[1]
BUILDERS: Final = {"docker": ["docker", "build"], "podman": ["podman", "build"], "buildah": ["buildah", "bud"]}
TAKEN: Final = {"index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout", "retries"}
CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")


def pip_configuration(listed: str) -> str:
    """What `pip config list` printed, as far as it says where packages are, as a configuration file."""
    lines = ["[global]"]
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2].replace("_", "-")
        if key in TAKEN:
            text = ast.literal_eval(value).strip()  # as Python writes a text
            lines.append(f"{key.removeprefix('default-')} = " + "\n    ".join(text.split()))
    return "\n".join([*lines, f"cert = {CERTIFICATES}", ""])


def revision() -> str:
    """The commit, and whether something is not committed."""
    git = ["git", "-C", str(ROOT)]
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return "unknown"
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain"], check=True, capture_output=True, text=True).stdout
    return commit + ("-changed" if changed else "")


def build(builder: str, tag: str, base: str | None, options: list[str]) -> int:
    """Build it; the status of the builder."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    with tempfile.TemporaryDirectory() as folder:
        pip = Path(folder) / "pip.conf"
        pip.write_text(pip_configuration(listed), encoding="utf-8")
        command = [
            *BUILDERS[builder],
            f"--file={ROOT / 'deploy/Dockerfile'}",
            f"--tag={tag}",
            f"--build-arg=VERSION={__version__}",
            f"--build-arg=REVISION={revision()}",
            f"--secret=id=pip,src={pip}",
            f"--secret=id=ca,src={CERTIFICATES}",
            *([f"--build-arg=BASE={base}"] if base else []),
            *options,
            str(ROOT),
        ]
        return subprocess.run(command, check=False, env=os.environ | {"DOCKER_BUILDKIT": "1"}).returncode


def main() -> int:
    """The status of the builder; 2 where there is none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tag", default="ashi:latest", help="name of the image (default: ashi:latest)")
    parser.add_argument("--base", help="image that it begins with (default: as the Dockerfile says)")
    parser.add_argument("--builder", choices=BUILDERS, help="what builds it (default: the first there is)")
    parser.add_argument("options", nargs="*", help="further options of the builder, after --")
    given = parser.parse_args()
    builder = given.builder or next((name for name in BUILDERS if shutil.which(name)), None)
    if builder is None:
        print(f"none of {', '.join(BUILDERS)} is installed: install one of them", file=sys.stderr)  # noqa: T201
        return 2
    return build(builder, given.tag, given.base, given.options)


if __name__ == "__main__":
    sys.exit(main())
