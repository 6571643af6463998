"""Waiting for whatever comes first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable


async def first_of(*awaitables: Awaitable[object] | None) -> None:
    """Wait for the first of several; None is none. The others are cancelled, but for tasks."""
    waiting = [each for each in awaitables if each is not None]
    tasks = [each if isinstance(each, asyncio.Task) else asyncio.ensure_future(each) for each in waiting]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task, each in zip(tasks, waiting, strict=True):
            if task is not each:
                task.cancel()
