"""What is told of a strategy that blocks or leaks while it runs, and when its process is ended for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NoReturn

from ashi.contracts.errors import StrategyError
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import strategy as metrics
from ashi_strategies.live.memory import resident_bytes

if TYPE_CHECKING:
    from ashi.runtime.service import Service
    from ashi_strategies.live.watched_thread import WatchedThread

LOOK_S: Final = 0.2
ENDS_AFTER: Final = 3
"""A strategy that blocks is told of after ASHI_STRATEGY_TIMEOUT and ended after so many times that."""
LAST_RESORT: Final = 4
"""After so many times that the process ends where nothing of Python can end it."""
ABOUT_MEMORY: Final = "memory"
_WARN_AT: Final = 0.8

_log = get_logger(__name__)


async def watch_time(service: Service, thread: WatchedThread, name: str) -> NoReturn:
    """Look on and on whether the strategy returns; raises StrategyError when it does not."""
    bound_s = service.settings.strategy_timeout_us / 1_000_000
    is_told = False
    while True:
        await asyncio.sleep(min(LOOK_S, bound_s / 4))
        running_s = thread.running_s
        if running_s > bound_s * ENDS_AFTER:
            raise StrategyError(
                f"strategy {name} has not returned for {running_s:.1f} s, more than {ENDS_AFTER} times "
                f"ASHI_STRATEGY_TIMEOUT, and is ended; it stands at:\n{thread.where()}"
            )
        if running_s > bound_s and not is_told:
            is_told = True
            told = f"strategy {name} does not return: for more than {bound_s:g} s (ASHI_STRATEGY_TIMEOUT)"
            service.health.set_hanging(told)
            metrics.strategy_blocked.set(1)
            _log.error(told, where=thread.where())
        elif running_s <= bound_s and is_told:
            is_told = False
            service.health.set_hanging(None)
            metrics.strategy_blocked.set(0)
            _log.info("the strategy has returned", strategy=name)


async def watch_memory(service: Service, name: str) -> NoReturn:
    """Look on and on what memory the process has; raises StrategyError when that is more than it may have."""
    limit = service.settings.strategy_memory_mb * 1_000_000
    metrics.strategy_memory_limit_bytes.set(limit)
    is_told = False
    while True:
        await asyncio.sleep(LOOK_S)
        taken = resident_bytes()
        if limit and taken > limit:
            raise StrategyError(
                f"the process of strategy {name} has {taken / 1e6:.0f} MB of memory and may have {limit / 1e6:.0f} MB "
                "(ASHI_STRATEGY_MEMORY_MB), so it ends: look what the strategy keeps, or allow more"
            )
        is_near = bool(limit) and taken > limit * _WARN_AT
        if is_near != is_told:
            is_told = is_near
            told = f"{taken / 1e6:.0f} MB of {limit / 1e6:.0f} MB of memory are taken; the process ends at all of them"
            service.health.set_remark(ABOUT_MEMORY, told if is_near else None)
            if is_near:
                _log.warning(told, strategy=name)
