"""The files of an earlier version of Ashi, whose processes share a deployment with those of this one.

It is that of a commit: the first whose rows and markers are those of now, so that the two can share a group. Of
versions before it a worker that gets a partition back could not read what the later one wrote (docs/upgrading.md).
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

EARLIER = "4812025"
ROOT = Path(__file__).parents[2]
ROOMS = (
    *("", "ingest", "aggregate", "sinks", "series", "audit", "history", "simulator", "strategies", "chart"),
    *("operations", "cli"),
)


def unpack(folder: Path) -> str | None:
    """Put the files of the earlier version into a folder; why that cannot be, where it cannot."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", EARLIER], capture_output=True, check=False)
    if archive.returncode:
        return f"commit {EARLIER} is not in the history here ({archive.stderr.decode().strip()})"
    folder.mkdir(exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return None


def environment(root: Path) -> dict[str, str]:
    """What lets a Python find the version in this folder, and no other: also not the one that it is started beside."""
    return {"PYTHONPATH": os.pathsep.join(str(root / room) for room in ROOMS), "PYTHONSAFEPATH": "1"}
