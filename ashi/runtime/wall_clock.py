"""The time of this machine, as messages have it."""

from __future__ import annotations

import time


def now_us() -> int:
    """µs since the epoch, UTC."""
    return time.time_ns() // 1_000
