"""Waiting for something, with a bound and a name for it."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(what: str, condition: Callable[[], object], timeout_s: float = 90.0, every_s: float = 0.1) -> None:
    """Wait until it holds; what it did not come to is said by the error."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"{what}: not within {timeout_s:g} s"
        time.sleep(every_s)
