"""`ashi doctor`: ask, judge, print."""

from __future__ import annotations

import asyncio
from itertools import groupby
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import UsageError
from ashi.runtime.library_logs import silence_client_library
from ashi.runtime.settings.parsers import redact_url
from ashi.runtime.words import counted
from ashi_operations.doctor.ask import Examiner
from ashi_operations.doctor.judge import checks_of
from ashi_operations.doctor.report import EXIT_OK, Report, State, report_of, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from ashi.runtime.settings import Settings

STAGES: Final[Mapping[str, Sequence[str]]] = {
    "ingest": ("ashi ingest",),
    "replay": ("ashi ingest replay",),
    "aggregate": ("ashi aggregate",),
    "sink": ("ashi sink",),
    "sink-trades": ("ashi sink --topic trades",),
    "strategy": ("ashi strategy run",),
    "chart": ("ashi chart",),
    "client": ("ashi.client",),
}
"""What `--stage` names, and the commands of `ashi.contracts.access.access_table` that it means."""
SIGNS: Final[Mapping[State, tuple[str, str]]] = {
    "ok": ("✓", "green"),
    "warning": ("!", "yellow"),
    "error": ("✗", "bold red"),
    "unknown": ("?", "magenta"),
    "skipped": ("-", "dim"),
}
WIDTH: Final = 140


def run_doctor(settings: Settings, *, stages: Sequence[str], store: bool, as_json: bool, quiet: bool) -> int:
    """Print what is found; the exit status: 0 all is well, 1 something is to be looked at, 2 something does not work.

    `stages`: those that this user is meant to run, of `STAGES`. `store`: whether a store is named. `quiet`: only what
    is not as it must be.
    """
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise UsageError(f"--stage {unknown[0]}: write one of {', '.join(STAGES)}")
    commands = [command for stage in stages for command in STAGES[stage]]
    silence_client_library()
    report = asyncio.run(examine(settings, commands, store=store))
    if as_json:
        print(redact_url(to_json(report)))
        return report.exit
    from rich.console import Console

    console = Console()
    print_report(console if console.is_terminal else Console(width=WIDTH), report, quiet=quiet)
    return report.exit


async def examine(settings: Settings, commands: Sequence[str], *, store: bool) -> Report:
    """Ask and judge."""
    facts = await Examiner(settings, commands, store=store).facts()
    return report_of(facts.now, settings.kafka_bootstrap, checks_of(facts))


def print_report(console: Console, report: Report, *, quiet: bool = False) -> None:
    """A line for each check, below it the command where there is one, by what they are about."""
    from rich.text import Text

    def line(text: str, style: str = "") -> None:
        # Not cut into lines of the terminal's width: a command must be copied whole.
        console.print(Text(redact_url(text), style=style), soft_wrap=True)

    shown = [check for check in report.checks if not quiet or check.state not in {"ok", "skipped"}]
    for room, checks in groupby(shown, key=lambda check: check.code.partition(".")[0]):
        line(room, "bold")
        for check in checks:
            sign, style = SIGNS[check.state]
            text = Text(f"  {sign} ", style=style).append(redact_url(check.text), style="not bold")
            console.print(text, soft_wrap=True)
            if check.command is not None:
                line(f"      {check.command}", "cyan")
    counts = {state: sum(check.state == state for check in report.checks) for state in SIGNS}
    if report.exit == EXIT_OK:
        line(f"all is well: {counted(counts['ok'], 'check')} good, {counts['skipped']} not needed", "bold green")
    else:
        words = [f"{counts[state]} {word}" for state, word in _WORDS.items() if counts[state]]
        line(f"{', '.join(words)}; below each the command to run next", "bold")


_WORDS: Final[Mapping[State, str]] = {
    "error": "do not work",
    "warning": "to be looked at",
    "unknown": "not known",
    "ok": "good",
}
