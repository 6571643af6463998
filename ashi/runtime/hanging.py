"""What a process waits for that should have ended: for the log, when it is ended all the same."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import FrameType

DEEPEST: Final = 6
"""So many frames are told of each, the innermost last."""


def what_hangs(loop: asyncio.AbstractEventLoop) -> dict[str, str]:
    """Where each task of an event loop waits and where the main thread is, by their names. From any thread."""
    places = {f"{task.get_name()} #{number}": _place_of(task) for number, task in enumerate(asyncio.all_tasks(loop))}
    main = threading.main_thread()
    if main.ident is not None and (frame := sys._current_frames().get(main.ident)) is not None:
        places[main.name] = " > ".join(
            _named(each.name, each.filename, each.lineno) for each in traceback.extract_stack(frame)[-DEEPEST:]
        )
    return places


def _place_of(task: asyncio.Task[Any]) -> str:
    # `Task.get_stack` gives the outermost frame only of a coroutine that waits.
    frames: list[str] = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame: FrameType | None = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            frames.append(_named(frame.f_code.co_name, frame.f_code.co_filename, frame.f_lineno))
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    return " > ".join(frames[-DEEPEST:])


def _named(function: str, file: str, line: int | None) -> str:
    return f"{function} ({Path(file).name}:{line})"
