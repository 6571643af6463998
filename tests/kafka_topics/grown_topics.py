"""Topics that are given more partitions beside whoever reads them."""

from __future__ import annotations

import asyncio

from ashi.contracts.errors import StateError
from ashi.runtime.settings import Settings
from ashi_aggregate.growth import grow

SESSION_S = 60


async def grow_when_nobody_works(settings: Settings, partitions: int) -> None:
    """Workers that another test has killed count as members until their session ends, and are waited for."""
    for _ in range(SESSION_S):
        try:
            return await grow(settings, partitions, tell=print)
        except StateError:
            await asyncio.sleep(1)
    return await grow(settings, partitions, tell=print)
