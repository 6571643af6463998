"""Writes the files of `docs/contracts`: python -m ashi.contracts.schemas docs/contracts."""

from __future__ import annotations

import sys
from pathlib import Path

from ashi.contracts.schemas import documents

if len(sys.argv) != 2:
    sys.exit("usage: python -m ashi.contracts.schemas FOLDER")
folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for name, text in documents().items():
    (folder / name).write_text(text, encoding="utf-8")
