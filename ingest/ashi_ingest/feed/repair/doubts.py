"""What a plan has told to be missing, until the ids of what follows show where it lies. Pure.

Only where ids are contiguous. Elsewhere nothing shows where it lies, and everything is compared with REST.
"""

from __future__ import annotations

from typing import Final

from ashi_ingest.venues.base import Missing

STEPS: Final = 2
"""What is missing lies at the latest among the trades of so many steps that follow it, see `Missing`; ids that a venue
leaves out for good were seen among those of the next."""


class Doubts:
    """What one plan has told to be missing."""

    def __init__(self) -> None:
        self._before_next: Missing | None = None
        self._around: list[tuple[Missing, int]] = []

    @property
    def are_open(self) -> bool:
        """Whether something that was told may lie after all that has followed."""
        return self._before_next is not None or bool(self._around)

    def tell(self, missing: Missing) -> None:
        """The plan tells it."""
        if missing.beyond_reach:
            self._before_next = missing
        else:
            self._around.append((missing, 1 if missing.final else STEPS))

    def at_jump(self) -> Missing | None:
        """What may be missing where the ids of what follows leave some out; None: nothing, they are absent."""
        if self._before_next is not None:
            missing, self._before_next = self._before_next, None
            return missing
        if not self._around:
            return None
        reasons = dict.fromkeys(missing.reason for missing, _ in self._around)
        return Missing("; ".join(reasons), final=all(missing.final for missing, _ in self._around))

    def pass_step(self) -> None:
        """All trades of a step have followed."""
        self._before_next = None
        self._around = [(missing, steps - 1) for missing, steps in self._around if steps > 1]
