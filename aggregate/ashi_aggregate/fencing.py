"""The end of a worker that was away for too long: others have its partitions by now."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from ashi.runtime.logs import flush_logs, get_logger

EXIT_SESSION_LOST: Final = 75
"""EX_TEMPFAIL: start me again."""

_log = get_logger(__name__)


def since_boot_s() -> float:
    """Seconds that go on while the machine is suspended, where the system has such a clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _exit() -> None:
    flush_logs()
    os._exit(EXIT_SESSION_LOST)


class SessionGuard:
    """Notices that this process stood still (stopped, swapped out, a frozen machine) beyond the session timeout.

    Kafka has then declared it dead, and another worker has its partitions. It must send nothing more, so it exits
    at once; whoever supervises it starts it again. `check` is called before anything is sent, and often.
    """

    def __init__(
        self,
        session_timeout_us: int,
        clock: Callable[[], float] = since_boot_s,
        lost: Callable[[], None] = _exit,
    ) -> None:
        self._bound_s = session_timeout_us / 1e6
        self._clock = clock
        self._lost = lost
        self._seen_at = clock()

    def check(self) -> None:
        """Note that the process runs; exit when it did not for longer than the session timeout."""
        now = self._clock()
        away_s = now - self._seen_at
        self._seen_at = now
        if away_s > self._bound_s:
            _log.error("stood still for longer than the session timeout, exiting", away_s=round(away_s, 1))
            self._lost()
