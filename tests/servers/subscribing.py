"""Feeds that are processes, and the venue that is simulated here: waiting until they read it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ashi_simulator import Simulator
    from servers.stages import Stage


async def until_subscribed(
    simulator: Simulator, markets: Collection[str], *feeds: Stage, timeout_s: float = 60.0
) -> None:
    """Wait until each of the markets is subscribed to, while all of the feeds run; else what they say is told."""
    deadline = time.monotonic() + timeout_s
    while missing := set(markets) - set(simulator.subscribed):
        ended = [feed for feed in feeds if feed.process.poll() is not None]
        if ended or time.monotonic() >= deadline:
            what = f"{len(ended)} of {len(feeds)} feeds have ended" if ended else f"not within {timeout_s:g} s"
            said = "\n".join(feed.log.read_text()[-3000:] for feed in ended or feeds)
            raise AssertionError(f"nobody is subscribed to {sorted(missing)}: {what}; they say\n{said}")
        await asyncio.sleep(0.02)
