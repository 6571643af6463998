"""What the image holds beside its base, in CycloneDX, of its lock: python deploy/sbom.py > sbom.cdx.json.

For the Python that runs it, on Linux: a lock has lines for other systems too. The hashes of the files are in the lock,
which lies beside this list in the image.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from packaging.markers import Marker

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = ROOT / "deploy/requirements.lock"
LINUX: Final = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}


def locked(text: str) -> dict[str, str]:
    """The packages that a lock names for this Python on Linux, with their versions."""
    lines = re.findall(r"^([a-z][^\s=]*)==([^\s;]+)(?: ; ([^\\\n]+))?", text, re.MULTILINE)
    return {name: number for name, number, marker in lines if not marker or Marker(marker).evaluate(dict(LINUX))}


def version() -> str:
    """Ashi's own."""
    [found] = re.findall(
        r'^__version__ = "([^"]+)"', (ROOT / "ashi/__init__.py").read_text(encoding="utf-8"), re.MULTILINE
    )
    return str(found)


def bill(packages: dict[str, str]) -> dict[str, Any]:
    """In the words of CycloneDX 1.6."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "name": "ashi-candles",
                "version": version(),
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": [
            {"type": "library", "name": name, "version": number, "purl": f"pkg:pypi/{name}@{number}"}
            for name, number in packages.items()
        ],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(bill(locked(LOCK.read_text(encoding="utf-8"))), indent=1) + "\n")
