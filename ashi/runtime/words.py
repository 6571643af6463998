"""Numbers as people read them."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """`1 feed`, `1,200 feeds`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
