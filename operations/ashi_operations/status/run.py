"""`ashi status`: one look, or one after another on a screen of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from ashi.runtime.library_logs import silence_client_library
from ashi_operations.status.screen import draw, fitted
from ashi_operations.status.snapshot import Snapshot, to_json
from ashi_operations.status.watch import LOOK_S, Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from ashi.runtime.settings import Settings

WIDTH: Final = 140
"""Where it is no terminal."""
NOT_REACHED: Final = 1


def run_status(
    settings: Settings,
    *,
    symbols: Sequence[str],
    once: bool,
    as_json: bool,
    interval_s: float,
    timeout_s: float = LOOK_S,
) -> int:
    """Print it; the exit status: 1 where Kafka could not be reached.

    On a terminal it is drawn anew every `interval_s` seconds until Ctrl-C, unless `once` or `as_json`, which look once.
    """
    from rich.console import Console

    silence_client_library()
    console = Console()
    if once or as_json or not console.is_terminal:
        snapshot = asyncio.run(look_once(settings, symbols, timeout_s))
        if as_json:
            print(to_json(snapshot))
        else:
            plain = console if console.is_terminal else Console(width=WIDTH)
            plain.print(draw(snapshot), soft_wrap=not console.is_terminal)
        return NOT_REACHED if snapshot.brokers is None else 0
    try:
        asyncio.run(_watch(settings, symbols, interval_s, timeout_s, console))
    except KeyboardInterrupt:
        return 0
    return 0


async def look_once(settings: Settings, symbols: Sequence[str], timeout_s: float) -> Snapshot:
    """One look, which takes up to three times `timeout_s`: to connect, to read what the topics hold, to ask."""
    watch = Watch(settings, symbols)
    try:
        first = await watch.look(timeout_s)
        if first.brokers is None:
            return first
        watch.start()
        await watch.wait_for_past(timeout_s)
        return await watch.look(timeout_s)
    finally:
        await watch.close()


async def _watch(
    settings: Settings, symbols: Sequence[str], interval_s: float, timeout_s: float, console: Console
) -> None:
    from rich.live import Live

    watch = Watch(settings, symbols)
    watch.start()
    footer = f"every {interval_s:g} s; Ctrl-C ends it"
    try:
        await watch.wait_for_past(min(timeout_s, 2.0))
        with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="ellipsis") as screen:
            while True:
                snapshot = await watch.look(timeout_s)
                screen.update(fitted(console, snapshot, footer), refresh=True)
                await asyncio.sleep(interval_s)
    finally:
        await watch.close()
