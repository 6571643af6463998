"""One rehearsal: a deployment on hosts of its own under load, one fault after the other, each held to the oracle."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from ashi.runtime.kafka.connections.clients import partition_of
from multihost.checks import check
from multihost.delays import Delay, Delays, longest
from multihost.deployment import Rehearsed
from multihost.faults import ROLLS, Fault
from rig.fleet import PromiseError, Worker
from servers.kafka_cluster import READY_S
from soak.deployment import LATENESS_US, PARTITIONS
from soak.deployment import READY_S as STAGE_READY_S
from soak.judgement import Numbers, judge

CALM_S: Final = 1.0
"""Nobody is late where the newest candle of each symbol was due no longer ago than its window and this."""
STEADY_S: Final = 3.0
"""It is calm when nobody has been late for so long."""
SETTLE_S: Final = 180.0
BEFORE_S: Final = 0.5
"""Candles that were due so long before a fault may have been on their way."""
AIM_S: Final = 1.0
"""The longest that candles may wait of whom nothing was done to, while workers are restarted one by one."""
ORDER: Final = ("sink", "strategy", "chart", "aggregate", "ingest")
"""Who reads a topic before who writes it."""


class Step(NamedTuple):
    """A worker was restarted: when (seconds since the epoch), and whose candles may have waited for it."""

    name: str
    own: Collection[str]
    began_s: float
    ended_s: float


class Row(NamedTuple):
    """Of the table: a fault, and what candles did meanwhile (seconds).

    Attributes:
        fault: it.
        lasted_s: until it was mended, or done.
        stalls: the longest delay of a candle, by partition.
        delays: of all candles that were due from its beginning until all was calm again.
        others_s: where workers were restarted, the longest delay of a candle that had nothing to do with that one.
        rows: candles that each store was found to have, as the oracle has them.
        ends: how workers have ended by themselves, as far as that was to be expected.

    """

    fault: Fault
    lasted_s: float
    stalls: Mapping[int, float]
    delays: Sequence[Delay]
    others_s: Mapping[str, float]
    rows: int
    ends: Mapping[str, int]


@dataclass
class Result:
    """What a rehearsal has to show. `missed`: where an aim was, and `wrong`: what must not be, in sentences."""

    calm: Sequence[Delay]
    """Of candles before the first fault."""
    rows: list[Row]
    numbers: Numbers
    asked: int
    """How often a worker has said that it lives."""
    seconds: float
    missed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Rehearsal:
    """The state of one run."""

    def __init__(
        self, deployment: Rehearsed, faults: Sequence[Fault], most_s: float, calm_s: float, closing: ExitStack
    ) -> None:
        self.deployment = deployment
        self.timeline = deployment.timeline
        self._faults = faults
        self._most_s = most_s
        self._calm_s = calm_s
        self._closing = closing
        self._steps: list[Step] = []
        self._delays = Delays(deployment.bootstrap, PARTITIONS, deployment.symbols, LATENESS_US)
        closing.callback(self._delays.stop)

    def run(self) -> Result:
        """Raises PromiseError when the run itself cannot go on; all else that is wrong is in the result."""
        deployment, timeline = self.deployment, self.timeline
        deployment.start()
        began_s = time.time()
        self._delays.start()
        deployment.liveness.start()
        self.settle()
        timeline("everything is at work")
        calm_s = time.time()
        deployment.fleet.wait(2 * STEADY_S)
        calm = self._delays.between(calm_s - STEADY_S, time.time())
        since_us = int(began_s * 1e6)
        rows, missed, wrong = [], [], []
        for fault in self._faults:
            if timeline.now > self._most_s:
                missed.append(f"{fault.name} and all after it were left out: the time was over")
                break
            row, broken, since_us = self._perform(fault, since_us)
            rows.append(row)
            wrong += [f"{fault.name}: {sentence}" for sentence in broken]
            late = {name: stall_s for name, stall_s in row.others_s.items() if stall_s > AIM_S}
            if fault.name in ROLLS and late:
                missed.append(f"{fault.name}: others' candles waited for more than {AIM_S:g} s, at restarts of {late}")
        deployment.liveness.stop()
        timeline("judging")
        numbers, wrong_rows = judge(deployment)
        wrong += [*wrong_rows, *deployment.liveness.denied, *deployment.fleet.unexplained]
        return Result(calm, rows, numbers, deployment.liveness.asked, timeline.now, missed, wrong)

    def _perform(self, fault: Fault, since_us: int) -> tuple[Row, list[str], int]:
        """Gives its row, what is wrong, and from when on the next look has to look."""
        deployment, fleet = self.deployment, self.deployment.fleet
        self.settle()
        self._steps.clear()
        ends = Counter(fleet.ends)
        self.timeline(f"fault: {fault.name}: {fault.what}")
        began_s = time.time()
        with fault.broken(self):
            fleet.wait(fault.lasts_s)
        mended_s = time.time()
        self.timeline(f"mended after {mended_s - began_s:.1f} s")
        deployment.await_ready()
        fleet.must(deployment.trio.all_in_sync, READY_S, "not all copies are in sync")
        self.settle()
        over_s = time.time()
        delays = self._delays.between(began_s - BEFORE_S, over_s)
        stalls = {
            partition: longest([each for each in delays if partition_of(each.symbol.encode(), PARTITIONS) == partition])
            for partition in sorted({partition_of(symbol.encode(), PARTITIONS) for symbol in deployment.symbols})
        }
        looked_us = int(time.time() * 1e6)
        found = check(deployment, since_us)
        row = Row(
            fault,
            mended_s - began_s,
            stalls,
            delays,
            {step.name: self._others_s(step) for step in self._steps},
            found.rows,
            fleet.ends - ends,
        )
        self.timeline(f"{fault.name}: longest stall {max(stalls.values()):.2f} s; {found.rows} candles in every store")
        return row, found.wrong, looked_us

    def _others_s(self, step: Step) -> float:
        """The longest delay of a candle that had nothing to do with the worker that was restarted."""
        delays = self._delays.between(step.began_s - BEFORE_S, step.ended_s)
        return longest([each for each in delays if each.symbol not in step.own])

    # For faults

    def settle(self) -> None:
        """Wait until no candle is late for a while. Raises PromiseError when that does not come."""
        calm_since_s = time.monotonic()

        def is_calm() -> bool:
            nonlocal calm_since_s
            if self._delays.late_now_s > self._calm_s:
                calm_since_s = time.monotonic()
            return time.monotonic() - calm_since_s > STEADY_S

        if not self.deployment.fleet.wait_until(is_calm, SETTLE_S):
            last = self._delays.between(time.time() - STEADY_S, time.time())
            raise PromiseError(
                f"candles are {self._delays.late_now_s:.1f} s late, and stay so for {SETTLE_S:g} s; the last came "
                f"{', '.join(f'{each.late_s:.1f} s ({each.symbol})' for each in last)} after they were due"
            )

    def workers_in_order(self) -> list[Worker]:
        """Those that are wanted, who reads a topic before who writes it."""
        return [worker for stage in ORDER for worker in self.deployment.workers(stage) if worker.wanted]

    def restart(self, worker: Worker, version: str | None = None) -> None:
        """Tell it to stop, and start it again, of another version where one is named; wait until all is calm."""
        fleet = self.deployment.fleet
        self.settle()
        own, starts, began_s = self.deployment.own_symbols(worker), worker.starts, time.time()
        if version is not None:
            known = {name for each in self.deployment.versions.values() for name in each}
            kept = {name: value for name, value in worker.environment.items() if name not in known}
            worker.environment = {**kept, **self.deployment.versions[version]}
        fleet.terminate(worker, 0.0)
        fleet.must(lambda: worker.starts > starts and worker.ready, STAGE_READY_S, f"{worker.name} is not ready again")
        self.settle()
        self._steps.append(Step(worker.name, own, began_s, time.time()))


def run(
    directory: Path,
    seed: int,
    *,
    rate: int,
    chosen: Sequence[Fault],
    minutes: float,
    calm_s: float,
    static: bool,
    versions: Mapping[str, Mapping[str, str]],
    say: Callable[[str], None] = print,
) -> Result:
    """Rehearse faults in an order that the seed draws. Raises PromiseError, NotAllowedError."""
    faults = random.Random(seed).sample(chosen, len(chosen))
    with ExitStack() as closing:
        deployment = Rehearsed(directory, seed, rate, say, closing, static=static, versions=versions)
        deployment.timeline(f"{rate} trades a second; {', '.join(fault.name for fault in faults)}")
        return Rehearsal(deployment, faults, minutes * 60, calm_s, closing).run()
