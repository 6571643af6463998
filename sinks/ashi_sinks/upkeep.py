"""What a worker does for its store beside writing, at its times: see `Store.upkeep`."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import StorageError
from ashi.runtime.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

SPREAD: Final = 0.1
"""By up to so much of its interval a chore begins later, so that several workers do not begin at once."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Chore:
    """Something that is to be done again and again.

    Attributes:
        name: for people: `compact`.
        interval_s: it is done at the multiples of this since the epoch, so a restart does not put it off.
        do: does it, in a thread, and says in sentences what was done. It ends soon after the event is set, and may then
            leave the rest for the next time. Raises StorageError.

    """

    name: str
    interval_s: float
    do: Callable[[threading.Event], list[str]]


async def run_chore(
    chore: Chore, sink: str, *, now_s: Callable[[], float] = time.time, spread: Callable[[], float] = random.random
) -> None:
    """Do it for ever. What fails is logged and tried again at its next time: writing goes on."""
    while True:
        now = now_s()
        due = (now // chore.interval_s + 1 + SPREAD * spread()) * chore.interval_s
        await asyncio.sleep(due - now)
        stopping = threading.Event()
        began = time.monotonic()
        try:
            done = await asyncio.to_thread(chore.do, stopping)
        except StorageError as error:
            _log.warning(f"{chore.name} failed, it is tried again at its next time", sink=sink, reason=str(error))
        else:
            for sentence in done:
                _log.info(f"{chore.name}: {sentence}", sink=sink, seconds=round(time.monotonic() - began, 3))
        finally:
            stopping.set()
