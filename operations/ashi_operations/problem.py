"""What is wrong, and the command to run next: of the status and of the doctor."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

Level: TypeAlias = Literal["error", "warning"]
LEVELS: Final[tuple[Level, ...]] = ("error", "warning")
"""The worse first."""


class Problem(msgspec.Struct, frozen=True):
    """Something that is not as it should be.

    Attributes:
        level: `error`: candles are late, missing or not stored now. `warning`: they will be, or may be.
        code: what kind of problem it is, such as `feeds.down`; never changes its meaning.
        about: what it is about: a venue, a group, a topic; "" for the whole.
        text: what was found, in one sentence.
        command: to run next: it mends the problem, or shows what there is to decide.

    """

    level: Level
    code: str
    about: str
    text: str
    command: str


def worst_first(problems: list[Problem]) -> list[Problem]:
    """Errors before warnings, else in the order that they were found in."""
    return sorted(problems, key=lambda problem: LEVELS.index(problem.level))
