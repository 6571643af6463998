"""The licences of what an installation of Ashi brings along, as the packages themselves say: docs/licences.md.

.venv/bin/python tests/packaging/licences.py > docs/licences.md
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
LOCK: Final = ROOT / "deploy/requirements.lock"
"""What the image has: every stage and every store."""

ACCEPTED: Final = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "HPND", "ISC", "LicenseRef-Repoze", "MIT",
    "MIT-CMU", "MPL-2.0", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib",
}  # fmt: skip
"""All let others use, change and ship what they cover, with their notice. MPL-2.0 asks for the source of its own files
where these are changed, which nobody does here."""
_SPELLINGS: Final = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "apache-2": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd-3": "BSD-3-Clause",
    "bsd-like": "BSD-3-Clause",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
    "psf license": "PSF-2.0",
    "the mit license (mit)": "MIT",
    # Permissive, of Zope's: it asks for the notice, and that changed files say so.
    "repoze public license": "LicenseRef-Repoze",
}
_TOLD_ELSEWHERE: Final = {"ta-lib": "BSD-2-Clause"}
"""By the file of the licence that comes with the package, and not by what describes it."""


def locked() -> list[str]:
    """The names of all packages of the lock."""
    names = re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    return sorted(set(names), key=str.lower)


def licence_of(found: Distribution) -> str:
    """As SPDX writes it, of what the package says by one of the three ways that there are; empty where by none."""
    told: Any = found.metadata
    if expression := told.get("License-Expression"):
        return str(expression)
    by_classifier = [
        line.rpartition("::")[2].strip() for line in told.get_all("Classifier", []) if line.startswith("License ::")
    ]
    texts = [*by_classifier, str(told.get("License") or "").strip().partition("\n")[0]]
    for text in texts:
        known = _SPELLINGS.get(text.lower(), text)
        if known in ACCEPTED:
            return known
    return next(filter(None, texts), "")


def parts(expression: str) -> set[str]:
    """The licences of an expression of SPDX that count together; of alternatives, as of `A OR B`, all."""
    return set(re.split(r"\s+(?:AND|OR)\s+|[()]", expression)) - {""}


def installed() -> dict[str, str]:
    """The licence of each package of the lock that is installed here: some are for other systems."""
    found = {}
    for name in locked():
        try:
            found[name] = licence_of(distribution(name)) or _TOLD_ELSEWHERE.get(name, "")
        except PackageNotFoundError:
            continue
    return found


def page() -> str:
    """The text of docs/licences.md."""
    lines = [
        "<!-- Generated: .venv/bin/python tests/packaging/licences.py > docs/licences.md -->",
        "# Licences",
        "",
        "Ashi is under the Apache License 2.0 ([LICENSE](../LICENSE)); [NOTICE](../NOTICE) names what is bundled.",
        "All stages and stores together bring these packages along, under the licences that they name themselves.",
        "Tests fail for a licence that is not accepted, and where this page is not as it is installed.",
        "",
        "| package | licence |",
        "|---|---|",
        *(f"| {name} | {licence} |" for name, licence in installed().items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
