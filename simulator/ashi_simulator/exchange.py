"""The market's clock: lets executions happen, remembers them, and hands them to whoever has subscribed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final, Protocol

from ashi_simulator.executions import ExecutionBatch, TradeHistory, TrueTrade

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ashi_simulator.fault_injector import FaultInjector
    from ashi_simulator.script import Step
    from ashi_simulator.subscriptions import Subscriptions
    from ashi_simulator.venue_server import VenueServer

TICK_S: Final = 0.004
"""Executions happen in steps of this; their times lie between the steps."""
NS_PER_TICK: Final = 100


class Source(Protocol):
    """Where executions come from."""

    def start(self, now: int) -> None:
        """Trade from `now` on (100 ns since the epoch)."""

    def due(self, now: int) -> Iterable[ExecutionBatch]:
        """What happened since the last call, up to `now`."""


class Exchange:
    """The markets of a venue, trading or not.

    Attributes:
        histories: all executions of each market.
        trades: how many executions happened in all.

    """

    def __init__(
        self,
        venue: str,
        markets: Sequence[str],
        *,
        source: Source,
        subscriptions: Subscriptions,
        venue_server: VenueServer,
        script: Sequence[Step],
    ) -> None:
        self.histories = {market: TradeHistory(venue, market) for market in markets}
        self.trades = 0
        self._source = source
        self._subscriptions = subscriptions
        self._venue_server = venue_server
        self._timed = sorted((step for step in script if step.at_s is not None), key=lambda step: step.at_s or 0.0)
        self._counted = sorted(
            (step for step in script if step.after_trades is not None), key=lambda step: step.after_trades or 0
        )
        self._task: asyncio.Task[None] | None = None
        self._traded_s = 0.0
        self._base_ns = time.time_ns() - time.monotonic_ns()

    def now(self) -> int:
        """The exchange's clock: 100 ns since the epoch. It never goes back."""
        return (self._base_ns + time.monotonic_ns()) // NS_PER_TICK

    @property
    def trading(self) -> bool:
        """Whether executions happen."""
        return self._task is not None and not self._task.done()

    @property
    def script_done(self) -> bool:
        """Whether every fault of the script has been performed."""
        return not self._timed and not self._counted

    def start(self, fault_injector: FaultInjector) -> None:
        """Let the market trade; does nothing if it does."""
        if not self.trading:
            self._source.start(self.now())
            self._task = asyncio.get_running_loop().create_task(self._trade(fault_injector))

    async def stop(self) -> None:
        """Let nothing happen any more; what has happened is sent. Raises what ended the market, if something did."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._subscriptions.release_all()

    async def _trade(self, fault_injector: FaultInjector) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            self._step()
            now = loop.time()
            self._traded_s += now - last
            last = now
            self._inject_faults(fault_injector)
            await asyncio.sleep(TICK_S)

    def _step(self) -> None:
        for batch in self._source.due(self.now()):
            history = self.histories.get(batch.market)
            if history is not None:
                history.executions.extend(batch.executions)
                self.trades += len(batch.executions)
                self._subscriptions.publish(batch.market, self._venue_server.frames(batch))
        self._subscriptions.flush()

    def _inject_faults(self, fault_injector: FaultInjector) -> None:
        while self._timed and (self._timed[0].at_s or 0.0) <= self._traded_s:
            step = self._timed.pop(0)
            fault_injector.perform(step.fault, step.args)
        while self._counted and (self._counted[0].after_trades or 0) <= self.trades:
            step = self._counted.pop(0)
            fault_injector.perform(step.fault, step.args)

    def truth(self, since_us: int, markets: Iterable[str] | None) -> Iterator[TrueTrade]:
        """Market by market, in the order of each, what must be published; from `since_us` on."""
        for market, history in self.histories.items():
            if markets is None or market in set(markets):
                yield from history.truth(since_us)
