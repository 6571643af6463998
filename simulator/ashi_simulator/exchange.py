"""The market's clock: lets executions happen, remembers them, and hands them to whoever has subscribed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from ashi_simulator.executions import PER_MS, ExecutionBatch, History, TrueTrade

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ashi_simulator.markets.listings import Listings
    from ashi_simulator.script import Step
    from ashi_simulator.subscriptions import Subscriptions
    from ashi_simulator.venue_server import VenueServer

TICK_S: Final = 0.004
"""Executions happen in steps of this; their times lie between the steps."""
NS_PER_TICK: Final = 100


Inject: TypeAlias = "Callable[[str, dict[str, Any]], None]"
"""Performs a fault, by its name and arguments."""


class Source(Protocol):
    """Where executions come from."""

    def start(self, now: int) -> None:
        """Trade from `now` on (100 ns since the epoch)."""

    def due(self, now: int) -> Iterable[ExecutionBatch]:
        """What happened since the last call, up to `now`."""

    def open(self, markets: Sequence[str]) -> None:
        """From now on these trade, and no other."""


class Exchange:
    """The markets of a venue, trading or not.

    Attributes:
        histories: all executions of each market that was ever listed.
        trades: how many executions happened in all.
        offset: how far what the venue says of the time is off, in 100 ns; positive is ahead.

    """

    def __init__(
        self,
        listings: Listings,
        *,
        source: Source,
        subscriptions: Subscriptions,
        venue_server: VenueServer,
        script: Sequence[Step],
        make_history: Callable[[str], History],
        sleeps: bool = True,
        tick_s: float = TICK_S,
    ) -> None:
        """`sleeps`: time stands still while the machine sleeps, and where its clock is set it goes on evenly."""
        self.histories = {market: make_history(market) for market in listings}
        self.trades = 0
        self.offset = 0
        self._make_history = make_history
        self._listings = listings
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
        self._sleeps = sleeps
        self._tick_s = tick_s
        self._latest = 0

    def now(self) -> int:
        """When it is: 100 ns since the epoch. It never goes back."""
        if self._sleeps:
            return (self._base_ns + time.monotonic_ns()) // NS_PER_TICK
        self._latest = max(self._latest, time.time_ns() // NS_PER_TICK)
        return self._latest

    def told_time(self) -> int:
        """What the venue's clock shows, as clients are told: 100 ns since the epoch."""
        return self.now() + self.offset

    def set_clock(self, offset_s: float) -> None:
        """Have the venue's clock off by so much, to the ms, so that the digits below it keep their form."""
        self.offset = round(offset_s * 1000) * PER_MS

    def relist(self) -> None:
        """Let those markets trade that are listed as trading, new ones too."""
        for market in self._listings:
            if market not in self.histories:
                self.histories[market] = self._make_history(market)
        self._source.open(self._listings.trading())

    @property
    def trading(self) -> bool:
        """Whether executions happen."""
        return self._task is not None and not self._task.done()

    @property
    def script_done(self) -> bool:
        """Whether every fault of the script has been performed."""
        return not self._timed and not self._counted

    def start(self, inject: Inject) -> None:
        """Let the market trade; does nothing if it does."""
        if not self.trading:
            self._source.start(self.now())
            self._task = asyncio.get_running_loop().create_task(self._trade(inject))

    async def stop(self) -> None:
        """Let nothing happen any more; what has happened is sent. Raises what ended the market, if something did."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._subscriptions.release_all()

    async def _trade(self, inject: Inject) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            self._step()
            now = loop.time()
            self._traded_s += now - last
            last = now
            self._inject_faults(inject)
            await asyncio.sleep(self._tick_s)

    def _step(self) -> None:
        now = self.now()
        for batch in self._source.due(now):
            history = self.histories.get(batch.market)
            if history is not None:
                told = self._by_its_clock(batch)
                history.add(told.executions, now)
                self.trades += len(told.executions)
                self._subscriptions.publish(told.market, self._venue_server.frames(told))
        self._subscriptions.flush()

    def _by_its_clock(self, batch: ExecutionBatch) -> ExecutionBatch:
        if not self.offset:
            return batch
        executions = [execution._replace(at=execution.at + self.offset) for execution in batch.executions]
        return ExecutionBatch(batch.market, executions)

    def _inject_faults(self, inject: Inject) -> None:
        while self._timed and (self._timed[0].at_s or 0.0) <= self._traded_s:
            step = self._timed.pop(0)
            inject(step.fault, step.args)
        while self._counted and (self._counted[0].after_trades or 0) <= self.trades:
            step = self._counted.pop(0)
            inject(step.fault, step.args)

    def truth(self, since_us: int, markets: Iterable[str] | None) -> Iterator[TrueTrade]:
        """Market by market, in the order of each, what must be published; from `since_us` on."""
        for market, history in self.histories.items():
            if markets is None or market in set(markets):
                yield from history.truth(since_us)
