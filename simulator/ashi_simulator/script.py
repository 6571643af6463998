"""Scripts of faults: JSON lines, each a fault and when.

    {"at_s": 2.5, "fault": "drop", "args": {"connections": "one"}}
    {"after_trades": 1000, "fault": "rest_429"}

`at_s`: seconds after the market started. `after_trades`: as soon as so many trades have happened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from ashi.contracts.errors import UsageError
from ashi_simulator.faults import FAULTS, check_fault, possible_faults
from ashi_simulator.rules import DEFAULT_MARKETS, check_venue

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Step:
    """A fault, and when: one of the two times is set."""

    fault: str
    args: dict[str, Any] = field(default_factory=dict)
    at_s: float | None = None
    after_trades: int | None = None


def read_script(path: Path) -> list[Step]:
    """Read a script. Raises UsageError that names the line and what is wrong with it."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"script {path} cannot be read: {error}") from error
    steps = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                steps.append(_step(line))
            except (ValueError, TypeError, UsageError) as error:
                raise UsageError(
                    f'{path}:{number}: {error}. Write lines such as {{"at_s": 2.5, "fault": "drop", "args": {{}}}}'
                ) from None
    return steps


def _step(line: str) -> Step:
    step = Step(**json.loads(line))
    times = [time for time in (step.at_s, step.after_trades) if time is not None]
    if len(times) != 1 or not isinstance(times[0], int | float) or isinstance(times[0], bool) or times[0] < 0:
        raise UsageError("one of at_s and after_trades must be given, as a number that is not negative")
    if not isinstance(step.args, dict):
        raise UsageError("args must be an object")
    return step


def check_script(script: Sequence[Step], venue: str, markets: Sequence[str]) -> None:
    """Refuse a script with a fault that does not exist or makes no sense here. Raises UsageError."""
    known = list(markets)
    for step in script:
        chosen = check_fault(step.fault, step.args, venue, known)
        if FAULTS[step.fault].new_market:
            known.append(chosen["market"])


def random_script(
    seed: int,
    count: int,
    venue: str,
    markets: Sequence[str] | None = None,
    *,
    every_s: float = 1.0,
    faults: Sequence[str] | None = None,
) -> list[Step]:
    """A script of `count` faults, on average one every `every_s` seconds, the first after one such time.

    Every fault that makes sense for the markets comes as often as the others do; of those named in `faults`, if some
    are. The same arguments give the same script.
    """
    possible = possible_faults(check_venue(venue), DEFAULT_MARKETS[venue] if markets is None else markets)
    if faults is not None:
        possible = [name for name in possible if name in faults]
    random = Random(f"{venue} {seed}")  # noqa: S311  (a script, not a secret)
    names = [name for _ in range(-(-count // len(possible))) for name in random.sample(possible, len(possible))]
    at_s = 0.0
    steps = []
    for name in names[:count]:
        at_s += random.uniform(0.5, 1.5) * every_s
        steps.append(Step(name, FAULTS[name].draw(random), at_s=round(at_s, 3)))
    return steps
