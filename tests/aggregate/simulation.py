"""A simulation of the whole set of rules without Kafka: one seed is one history of trades, crashes and zombies.

`python tests/aggregate/simulation.py 5000` runs so many seeds and prints those that fail.
"""

from __future__ import annotations

import asyncio
import random
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from ashi.contracts import Trade, parse_timeframes
from ashi.runtime.kafka.connections.clients import partition_of
from ashi_aggregate.core.window_state import WindowRules
from ashi_aggregate.write_queue import WriteBudget
from kafka_topics.simulated_log import Broker, Crash, Worker
from oracle import candles_of, closed, stored, timely, unique
from samples.hypothesis_strategies import START

NAMES = ["1m", "3m"]
TIMEFRAMES = parse_timeframes(",".join(NAMES))
SECOND = 1_000_000
COMPACTION_LAG = 300 * SECOND
"""`min.compaction.lag.ms` of the changelogs."""
FLAT = 8
"""The greatest number of flat candles in a row here, so that a history comes to it."""
MOST_SENT = 5
"""So many records of a candle at most, on average: a false time must not make each trade correct hundreds."""
SENT_AGAIN = 40
"""And so many more, as some histories are hardly more than crashes, after each of which some are sent again."""


class WrongCandlesError(AssertionError):
    """The comparison with the oracle has found a candle missing, wrong or too many, or a late trade unreported."""


class History:
    """What happens for one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.quiet_close = self.random.random() < 0.5
        self.rules = WindowRules(
            TIMEFRAMES[0],
            lateness_us=self.random.choice([0, 2 * SECOND]),
            horizon_us=self.random.choice([2, 60, 120, 300]) * SECOND,
            max_flat=FLAT,
        )
        self.broker = Broker(partitions=2)
        self.broker.now_us = START
        self.symbols = [f"binance:S{number}" for number in range(self.random.randint(1, 3))]
        self.log: list[Trade] = []
        self.appended: dict[str, int] = {}
        self.sequence = 0
        # Drawn by itself, so that a seed's trades and crashes do not depend on what clocks do.
        self.clocks = random.Random(-1 - seed)
        self.wrong_clock = self.clocks.choice(["none", "machines", "broker"])
        # So are these: of each worker its own.
        self.budgets = random.Random(f"budget {seed}")
        self.natives = random.Random(seed)

    def expire(self) -> None:
        """Before any worker starts, the log loses its beginning; sometimes what follows is no trade."""
        for _ in range(self.random.randint(1, 15)):
            self.broker.now_us += self.random.choice([0, SECOND, 30 * SECOND])
            self.publish()
        for partition, log in self.broker.trades.items():
            self.broker.earliest[partition] = self.random.randint(0, len(log))
            if self.random.random() < 0.5:
                self.broker.append(partition, b"garbage", b"garbage", self.broker.now_us // 1000)

    def is_stale(self, key: Any, content: dict[Any, Any]) -> bool:
        """Whether nobody answers for a candle any more: a new state has begun after its window."""
        return False

    def edges(self) -> dict[str, int]:
        """Where each symbol's candles begin: a minute after the first record that was there was appended."""
        edges = {}
        for partition, log in self.broker.trades.items():
            begin = self.broker.earliest.get(partition, 0)
            for symbol in self.symbols:
                if begin and partition_of(symbol.encode(), self.broker.partitions) == partition and begin < len(log):
                    edges[symbol] = log[begin].timestamp * 1000 + 60 * SECOND
        return edges

    def publish(self) -> None:
        """Some trades, later than the ones before, but with disorder, lateness, repetitions and quiet stretches."""
        rng = self.random
        for _ in range(rng.randint(1, 8)):
            if self.log and rng.random() < 0.15:
                copy = rng.choice(self.log[-30:])
                self._append(copy)
                continue
            behind = rng.choice([0, 0, 0, rng.randint(0, 2 * SECOND), rng.randint(0, 400 * SECOND)])
            traded_at = max(self.broker.now_us - behind, START)
            if rng.random() < 0.1:
                traded_at -= traded_at % (60 * SECOND)  # exactly on a minute
            self._append(
                Trade(
                    rng.choice(self.symbols),
                    str(self.sequence) if self.seed % 3 else f"t{self.sequence}",
                    Decimal(rng.randint(1, 10**4)),
                    Decimal(rng.randint(1, 10**4)),
                    rng.choice(["buy", "sell", None]),
                    traded_at,
                    traded_at,
                    self.sequence,
                )
            )
            self.sequence += 1

    def _append(self, trade: Trade) -> None:
        self.log.append(trade)
        self.broker.publish([trade], self.broker.append_time_ms())
        self.appended[trade.symbol] = max(self.appended.get(trade.symbol, 0), self.broker.append_time_ms() * 1000)

    def set_clocks(self, worker: Worker) -> None:
        """Now and then somebody sets a clock: that of a worker's machine to either side, or the broker's ahead."""
        if self.clocks.random() < 0.7:
            return
        step = self.clocks.choice([0, 0, 50, 3600, -50, -3600]) * SECOND
        if self.wrong_clock == "machines":
            worker.clock_ahead_us = step
        elif self.wrong_clock == "broker":
            self.broker.clock_ahead_us = max(step, 0)

    def worker(self, crash_after: int | None) -> Worker:
        """A worker that crashes at its so-many-th send."""
        return Worker(
            self.broker,
            TIMEFRAMES,
            self.rules,
            seed=self.random.random().__hash__(),
            crash_after=crash_after,
            quiet_close=self.quiet_close,
            clock_ahead_us=self.clocks.choice([0, 3600 * SECOND]) if self.wrong_clock == "machines" else 0,
            budget=self.budget(),
            native=self.natives.random() < 0.5,
        )

    def budget(self) -> WriteBudget:
        """Half of the workers write all rows at each checkpoint; the others those of one symbol or two."""
        if self.budgets.random() < 0.5:
            return WriteBudget()
        return WriteBudget(self.budgets.randint(1, 2 * len(TIMEFRAMES)), self.budgets.choice([10.0, 100.0, 1e9]))

    async def live(self) -> None:
        """Workers come, work, are killed at any send or declared dead and write on; the last one works to the end."""
        rng = self.random
        undead: list[Worker] = []
        if rng.random() < 0.2:
            self.expire()
        for _ in range(rng.randint(3, 12)):
            await self.happen(None)
            worker = self.worker(rng.choice([None, rng.randint(0, 40)]))
            try:
                await self.start(worker)
                for _ in range(rng.randint(1, 10)):
                    self.broker.now_us += rng.choice([0, SECOND, 10 * SECOND, 70 * SECOND])
                    if rng.random() < 0.8:
                        self.publish()
                    self.set_clocks(worker)
                    await self.happen(worker)
                    await self._step(worker)
                    for zombie in undead.copy():
                        await self.haunt(zombie, undead)
                    undead = [zombie for zombie in undead if rng.random() < 0.7]
                    if rng.random() < 0.1:
                        self.broker.compact(COMPACTION_LAG)
                if self.budgets.random() < 0.2:
                    await worker.pipeline.settle()
                if rng.random() < 0.4:
                    worker.crash_after = None
                    undead.append(worker)
            except self.ends:
                undead = [zombie for zombie in undead if zombie is not worker]
        await self.happen(None)
        await self.finish()

    ends: tuple[type[Exception], ...] = (Crash,)
    """What ends a worker, and not the history."""

    async def happen(self, worker: Worker | None) -> None:
        """What else may happen before a worker starts, or under one: see `moving_ground`."""

    async def start(self, worker: Worker) -> None:
        """It takes up all partitions."""
        await worker.start()

    async def haunt(self, zombie: Worker, undead: list[Worker]) -> None:
        """One of the `undead`, which were declared dead, goes on."""
        await self._step(zombie)

    async def finish(self) -> None:
        """The last worker works to the end, and perhaps a while beyond."""
        last = self.worker(None)
        await self.start(last)
        await last.run_to_end()
        self.set_clocks(last)
        self.broker.now_us += self.random.choice([0, 10 * SECOND, 1000 * SECOND])
        await last.pipeline.checkpoint()

    async def _step(self, worker: Worker) -> None:
        for partition in list(worker.next):
            if self.random.random() < 0.8:
                await worker.read(partition, self.random.randint(1, 9))
        if self.random.random() < 0.6:
            await worker.pipeline.checkpoint()

    def check(self) -> None:
        """Compare what a reader would have stored with the oracle. Raises WrongCandlesError."""
        counted = unique(timely(self.log, NAMES[0], self.rules.horizon_us))
        content = candles_of(counted, NAMES)
        candles = self.broker.candles()
        try:
            result = stored(candles)
        except AssertionError as error:
            raise WrongCandlesError(str(error)) from error
        early = self.broker.early
        _require(not early, f"{len(early)} candles left before they opened: {early[:1]}")
        _require(
            len(candles) <= MOST_SENT * len(result) + SENT_AGAIN,
            f"{len(candles)} records were sent for {len(result)} candles",
        )
        due = closed(content, self._clocks(), self.rules.lateness_us, FLAT)
        edges = self.edges()
        if edges:
            # What was not read may be missing, but nothing may be wrong.
            due = {key: value for key, value in due.items() if began(key, content) >= edges.get(key[0], 0)}
        wrong = {key: (result.get(key), value) for key, value in due.items() if result.get(key) != value}
        _require(not wrong, f"{len(wrong)} candles missing or wrong: {list(wrong.items())[:1]}")
        # A quiet window's candle may have come sooner than needed; it must be right all the same.
        ever = closed(content, [_at(trade, 2**60) for trade in counted], 0, FLAT)
        extra = {key: value for key, value in result.items() if key not in due and not self.is_stale(key, content)}
        _require(
            self.quiet_close or bool(edges) or not extra, f"{len(extra)} candles too many: {list(extra.items())[:1]}"
        )
        _require(all(ever.get(key) == value for key, value in extra.items()), "a candle sent early is wrong")
        late = self.broker.late_places()
        if edges:
            return
        too_late = len(self.log) - len(timely(self.log, NAMES[0], self.rules.horizon_us))
        _require(len(late) == too_late, f"{too_late} trades came too late, {len(late)} were reported")

    def _clocks(self) -> list[Trade]:
        """The log, and for a quiet market one trade per symbol that stands where wall time has brought its clock."""
        if not self.quiet_close:
            return self.log
        newest: dict[str, Trade] = {}
        for trade in self.log:
            if trade.symbol not in newest or trade.traded_at > newest[trade.symbol].traded_at:
                newest[trade.symbol] = trade
        return [
            _at(trade, trade.traded_at + self.broker.now_us - self.appended[symbol]) for symbol, trade in newest.items()
        ]


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise WrongCandlesError(otherwise)


def began(key: tuple[str, str, int], content: dict[Any, Any]) -> int:
    """When the window began that the candle's close is from: its own, or that of the last trades before it."""
    symbol, timeframe, open_time = key
    return max(
        (start for of, name, start in content if (of, name) == (symbol, timeframe) and start <= open_time), default=0
    )


def _at(trade: Trade, traded_at: int) -> Any:
    return Trade(trade.symbol, "", Decimal(0), Decimal(0), None, traded_at, traded_at, 0)


def simulate(seed: int) -> None:
    """Live through the history of a seed. Raises WrongCandlesError when a candle is missing, wrong or too many."""
    history = History(seed)
    asyncio.run(history.live())
    history.check()


def make_plain(number: int, traded_at: int) -> Trade:
    return Trade("binance:A", str(number), Decimal(number + 1), Decimal(1), "buy", traded_at, traded_at, number)


def main() -> int:
    """Run many seeds."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    failed = []
    for seed in range(seeds):
        try:
            simulate(seed)
        except WrongCandlesError as error:
            failed.append(seed)
            sys.stdout.write(f"seed {seed}: {str(error)[:300]}\n")
    sys.stdout.write(f"{seeds} histories, {len(failed)} with a wrong candle\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
