"""Inputs that are kept: seeds to begin with, and findings, each of which has once shown that something was wrong.

A file for each target, a line for each input: its bytes as Python writes them. Lines that begin with # say what it was.
"""

from __future__ import annotations

import ast
from pathlib import Path

HERE = Path(__file__).parent


def seeds(target: str) -> list[bytes]:
    """What a parser accepts, or nearly."""
    return _read(HERE / "seeds" / f"{target}.txt")


def findings(target: str) -> list[bytes]:
    """What it was once wrong about."""
    return _read(HERE / "findings" / f"{target}.txt")


def _read(path: Path) -> list[bytes]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [ast.literal_eval(line) for line in lines if line and not line.startswith("#")]
