"""What the doctor says. As JSON it is the contract of `ashi doctor --json`: docs/status.md has its fields."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

SCHEMA: Final = "ashi.doctor.v1"

State: TypeAlias = Literal["ok", "warning", "error", "unknown", "skipped"]
"""`unknown`: it could not be found out; `skipped`: there is nothing to check."""
EXIT_OK: Final = 0
EXIT_WARNING: Final = 1
EXIT_ERROR: Final = 2


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at. Several of one code are of several things, or several troubles of one.

    Attributes:
        code: what is checked, such as `topics.settings`; never changes its meaning.
        state: see `State`.
        text: what was found, in a sentence.
        command: to run next; null where all is well, and only there or where nothing was to be checked.

    """

    code: str
    state: State
    text: str
    command: str | None = None


class Report(msgspec.Struct, frozen=True):
    """All checks in the order of the way in: Kafka, rights, topics, state, groups, clocks, feeds, store.

    Attributes:
        at: when, µs.
        exit: 0: all is well; 1: something is to be looked at, or could not be found out; 2: something does not work.

    """

    at: int
    kafka: str
    checks: list[Check]
    exit: int
    schema: str = SCHEMA


def report_of(at: int, kafka: str, checks: list[Check]) -> Report:
    """The report with its exit status."""
    states = {check.state for check in checks}
    status = EXIT_ERROR if "error" in states else EXIT_WARNING if states & {"warning", "unknown"} else EXIT_OK
    return Report(at, kafka, checks, status)


def to_json(report: Report) -> str:
    """One line."""
    return msgspec.json.encode(report).decode()
