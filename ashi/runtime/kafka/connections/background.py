"""The tasks that the library's clients run by themselves, of whose end nobody is told."""

from __future__ import annotations

from typing import Any, Final

_TASKS: Final = (
    ("_coordinator", "_coordination_task"),
    ("_fetcher", "_fetch_task"),
    ("_sender", "_sender_task"),
)
"""Where a consumer keeps its membership and its fetches, and a producer its sending."""


def raise_if_dead(client: Any) -> None:
    """Raise what a task of a started consumer or producer has died of, if one has.

    Such a client looks as if there were nothing to read, or to do in its group, for ever. May be called in any thread.
    """
    for part, name in _TASKS:
        task = getattr(getattr(client, part, None), name, None)
        if task is not None and task.done() and not task.cancelled() and task.exception() is not None:
            raise task.exception()
