"""Progress for whoever waits: a moving line on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from typing import IO, TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

    from rich.status import Status

EVERY_S: Final = 2.0


class Reporter:
    """Writes to `file`; use it as a context manager."""

    def __init__(self, file: IO[str], every_s: float = EVERY_S) -> None:
        """`every_s`: the least time between two lines of a log."""
        from rich.console import Console

        self._console = Console(file=file, highlight=False)
        self._status: Status | None = None
        self._every_s = every_s
        self._last = ""
        self._written_at = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    @property
    def is_watched(self) -> bool:
        """Whether somebody sees each update: it is a terminal."""
        return self._status is not None

    def say(self, line: str) -> None:
        """A line that stays."""
        self._console.print(line, markup=False, soft_wrap=True)
        self._written_at = time.monotonic()

    def update(self, line: str) -> None:
        """How it stands now."""
        if self._status is not None:
            self._status.update(line)
        elif line != self._last and time.monotonic() - self._written_at >= self._every_s:
            self._last = line
            self.say(line)
