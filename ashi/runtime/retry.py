"""Trying again: one backoff with jitter, and one loop around it. What an error means is for whoever calls to say."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BACKOFF_BASE_S: Final = 0.5
BACKOFF_CAP_S: Final = 30.0

_T = TypeVar("_T")


class Backoff:
    """Capped exponential backoff with full jitter: each wait is drawn evenly between 0 and a ceiling that doubles.

    Full jitter spreads the attempts of all who lost the same server at the same moment; see "Exponential Backoff And
    Jitter" in the AWS architecture blog, 2015.
    """

    def __init__(
        self,
        base_s: float = BACKOFF_BASE_S,
        cap_s: float = BACKOFF_CAP_S,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._uniform = uniform
        self._ceiling_s = 0.0

    def next_s(self) -> float:
        """How long to wait now, seconds."""
        self._ceiling_s = min(self._ceiling_s * 2 or self._base_s, self._cap_s)
        return self._uniform(0.0, self._ceiling_s)

    def reset(self) -> None:
        """Begin anew: what was tried has succeeded."""
        self._ceiling_s = 0.0

    def lived(self, seconds: float) -> None:
        """Begin anew if a connection has lived longer than could be waited for it, so 0.5 to 30 s by default.

        So one that broke after a minute is soon replaced, and one that always breaks after its first frame is tried
        ever more seldom, up to twice in `cap_s` on average.
        """
        if seconds > self._ceiling_s:
            self.reset()


async def retry(
    attempt: Callable[[], Awaitable[_T]],
    *,
    least_wait_s: Callable[[Exception], float | None],
    patience_s: float | None = None,
    max_attempts: int | None = None,
    backoff: Backoff | None = None,
    on_wait: Callable[[Exception, float], None] = lambda _error, _wait_s: None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> _T:
    """The result of `attempt`, made again until it succeeds.

    Args:
        attempt: what to try.
        least_wait_s: what an error means: the least time to wait before the next attempt, seconds (0 leaves it to the
            backoff), or None when trying again cannot help; then the error is raised. The backoff's wait is added to
            it: whoever is sent away together shall not come back together.
        patience_s: the last error is raised when so long has passed since the first, or would have at the next
            attempt. None: never.
        max_attempts: the last error is raised after so many attempts. None: never.
        backoff: how long to wait between attempts; by default `Backoff()`.
        on_wait: told of each error that is tried again, and how long is waited, for a log line.
        sleep: how to wait; may raise, to end the attempts.

    """
    backoff = backoff or Backoff()
    failing_since_s: float | None = None
    attempts = 0
    while True:
        attempts += 1
        try:
            return await attempt()
        except Exception as error:
            least_s = least_wait_s(error)
            if least_s is None or attempts == max_attempts:
                raise
            now_s = time.monotonic()
            failing_since_s = now_s if failing_since_s is None else failing_since_s
            wait_s = least_s + backoff.next_s()
            if patience_s is not None and now_s + wait_s - failing_since_s > patience_s:
                raise
            on_wait(error, wait_s)
        await sleep(wait_s)
