"""A worker of a venue against the simulated venue, with a Kafka in memory and a reader who knows the truth.

All of it in one process, in virtual time and on a virtual network: minutes of a feed take half a second, whatever else
the machine does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from feed_reader import FeedReader, missing_at
from kafka_in_memory import KafkaInMemory, Record
from shared_time import run_virtually

from ashi.contracts.errors import VenueError
from ashi.contracts.feed import FeedGap
from ashi.runtime.service import Service
from ashi.runtime.settings import Settings
from ashi_ingest import worker as live
from ashi_simulator import RULES, Rules, Simulator

KEY = {"ASHI_BINANCE_API_KEY": "a-key-the-simulator-takes"}
TICK_S = 0.2
"""Executions happen in steps of this, of virtual time; their times lie between the steps."""
LOOK_S = 0.5
"""A worker looks at its feeds so often: five times less than it does, as looking is most of what it computes here."""
QUIET_S = 200.0
"""At the end nothing trades for so long, if need be; what can be got has been got then. Ten minutes where a test says
so."""
KNOWN_S = 30.0
"""Once everything is known to be there, it is quiet for so much longer, and nothing may come of that."""


@dataclass
class Rehearsal:
    """One run.

    Attributes:
        venue: such as `gmo`.
        markets: of the venue.
        rate: executions a second over all markets.
        uneven: the last of the markets hardly trade.
        quiet_s: how long nothing trades at the end, at most.
        before_s: how long the market trades before the worker is started.
        again_after_s: a worker that a venue will not let in at its start, and that ends of it, is started again so much
            later, as a platform does; 0: that is a failure.
        settings: of the worker, besides addresses.
        rules: the venue's limits; its own by default.
        gaps: those of the run but the opening ones, as they stood after the quiet time, by symbol.
        states: what `feed.status` said then.

    """

    venue: str
    markets: Sequence[str]
    rate: float = 5.0
    uneven: bool = False
    quiet_s: float = QUIET_S
    before_s: float = 0.0
    again_after_s: float = 0.0
    seed: int = 1
    settings: dict[str, str] = field(default_factory=dict)
    rules: Rules | None = None
    kafka: KafkaInMemory = field(default_factory=KafkaInMemory)
    options: dict[str, Any] = field(default_factory=dict)

    def run(self, act: Callable[[Rehearsal], Awaitable[None]]) -> Rehearsal:
        """Have `act` play while the worker reads and the market trades, then end the market, the worker, and look."""
        with self.kafka.installed(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(live, "LOOK_INTERVAL_S", LOOK_S)
            run_virtually(lambda: self._play(act))
        return self

    async def _play(self, act: Callable[[Rehearsal], Awaitable[None]]) -> None:
        async with (
            asyncio.timeout(24 * 3600),
            Simulator(
                self.venue,
                self.markets,
                seed=self.seed,
                rate=self.rate,
                uneven=self.uneven,
                rules=self.rules or RULES[self.venue],
                tick_s=TICK_S,
            ) as self.sim,
        ):
            self.reader = FeedReader(
                {f"{self.venue}:{market}": self.sim.truth_reader(market) for market in self.markets}
            )
            self.kafka.on_record = self._on_record
            self.traded_us = self.now_us()
            if self.before_s:
                self.sim.start_market()
                await asyncio.sleep(self.before_s)
            await self.start()
            # A worker that fetches the past first subscribes after that.
            within_s = 60 + 2 * len(self.markets) + self.before_s
            await self.until(lambda: set(self.markets) <= set(self.sim.subscribed), within_s)
            self.sim.start_market()
            self.began_us = self.now_us()
            await act(self)
            self.lasted_us = self.now_us() - self.began_us
            await self.sim.stop_market()
            self.ended_us = self.now_us()
            known = {
                name: {gap.from_time for gap in symbol.later_gaps()} for name, symbol in self.reader.symbols.items()
            }
            await self._be_quiet()
            self.reader.look_at_all(self.now_us())
            self.gaps = {
                name: [gap for gap in symbol.later_gaps() if gap.from_time in known[name]]
                for name, symbol in self.reader.symbols.items()
            }
            self.states = {name: symbol.status for name, symbol in self.reader.symbols.items()}
            await self.stop()
            self.reader.look_at_all(self.now_us())

    async def _be_quiet(self) -> None:
        """Let time pass without trades until all is known, and somewhat longer."""
        left_s = self.quiet_s
        while left_s > KNOWN_S and not self._is_all_known():
            await self.pause(1.0)
            left_s -= 1.0
        await self.pause(min(left_s, KNOWN_S))

    def _is_all_known(self) -> bool:
        return all(
            symbol.status is not None
            and (symbol.status.complete_until or 0) >= self.ended_us
            and all(gap.state == "repaired" or gap.final for gap in symbol.later_gaps())
            for symbol in self.reader.symbols.values()
        )

    def _on_record(self, record: Record) -> None:
        self.reader.on_record(record.topic, record.value, self.now_us())

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def start(self, markets: Sequence[str] | None = None, **options: Any) -> None:
        """Start the worker."""
        environment = {
            "ASHI_WEBSOCKET_URL": self.sim.websocket_url,
            "ASHI_REST_URL": self.sim.rest_url,
            **KEY,
            **self.settings,
        }
        self.service = Service(f"ingest-{self.venue}", Settings.from_environment(environment))
        chosen = live.LiveOptions(self.venue, self.markets if markets is None else markets, **self.options | options)
        self.worker = asyncio.create_task(live._Worker(self.service, chosen, None).run())

    async def stop(self) -> None:
        """Stop the worker in order; raises what it failed of."""
        self.service.stopping.set()
        await self.worker

    async def kill(self) -> None:
        """End the worker as a crash does: what is not acknowledged is never said."""
        self.worker.cancel()
        with suppress(asyncio.CancelledError, VenueError):  # the latter where it has ended by itself
            await self.worker

    async def pause(self, seconds: float) -> None:
        """Let time pass. Raises what the worker has failed of meanwhile, unless it is started again."""
        until_s = time.monotonic() + seconds
        while (await asyncio.wait([self.worker], timeout=max(0.0, until_s - time.monotonic())))[0]:
            error = self.worker.exception()
            if not (self.again_after_s and isinstance(error, VenueError)):
                raise error or AssertionError("the worker has ended")
            await asyncio.sleep(self.again_after_s)
            await self.start()

    async def until(self, condition: Callable[[], bool], within_s: float) -> float:
        """Wait until something is so, and give how long it took, seconds; it must not take longer than `within_s`."""
        begun = time.monotonic()
        while not condition():
            assert time.monotonic() - begun <= within_s, f"not within {within_s:g} s"
            await self.pause(0.1)
        return time.monotonic() - begun

    def fault(self, name: str, **arguments: Any) -> None:
        self.sim.fault(name, **arguments)

    def symbol(self, market: str) -> str:
        return f"{self.venue}:{market}"

    def found_s(self, market: str, since_us: int) -> Callable[[], bool]:
        """Whether a gap of the market has been told since a time."""
        symbol = self.reader.symbols[self.symbol(market)]
        return lambda: any(gap.updated_at >= since_us and not symbol.is_opening(gap) for gap in symbol.gap_messages)

    def lost_gaps(self) -> list[FeedGap]:
        """Those of the run but the opening ones that are lost."""
        return [gap for each in self.reader.symbols.values() for gap in each.later_gaps() if gap.state == "lost"]

    def is_whole(self, market: str) -> Callable[[], bool]:
        """Whether all that was traded of the market some seconds ago has been published."""
        symbol = self.reader.symbols[self.symbol(market)]

        def condition() -> bool:
            symbol.follow()
            return not any(happened_us < self.now_us() - 2_000_000 for _, happened_us in symbol.unpublished.values())

        return condition

    # What must be so at the end.

    def assert_told_the_truth(self, *, missing: Sequence[str] = ()) -> None:
        """Topic `trades` is the truth, the gaps are exact both ways, and the reader was right at every moment.

        `missing`: markets of which trades may be missing.
        """
        self.reader.assert_never_misled()
        self.reader.assert_truth(missing=[self.symbol(market) for market in missing])
        self.reader.assert_exact_gaps(self.lasted_us)
        for name, symbol in self.reader.symbols.items():
            open_gaps = [gap for gap in self.gaps[name] if gap.state == "open"]
            assert not open_gaps, open_gaps
            for trade, happened_us in symbol.unpublished.values():
                at = missing_at(trade, happened_us)
                assert any(
                    gap.state == "lost" and gap.from_time <= at < (gap.to_time or at + 1) for gap in self.gaps[name]
                ), f"{name}: {trade}, which happened at {happened_us}, is missing, and no gap says so"

    def assert_all_is_known(self) -> None:
        """After the quiet time at the end everything that happened is known to be there."""
        for name, status in self.states.items():
            assert status is not None, f"{name} has no status"
            assert status.complete_until is not None, f"{name}: nothing was ever checked"
            assert status.complete_until >= self.ended_us, f"{name}: {self.ended_us - status.complete_until} µs short"


class Rehearsed:
    """A suite of rehearsals. `name`: of a venue that the simulator has; `simulated`: three markets of all its kinds."""

    name: str
    simulated: tuple[str, str, str]

    def rehearsal(self, rate: float = 3.0, **options: Any) -> Rehearsal:
        return Rehearsal(self.name, self.simulated, rate=rate, **options)

    def many(self, amount: int) -> tuple[str, ...]:
        """Names of so many markets, as the venue writes them."""
        return tuple(f"M{number}{'USDT' if self.name.startswith('binance') else '_JPY'}" for number in range(amount))
