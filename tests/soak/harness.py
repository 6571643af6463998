"""One soak: a deployment under load, a fault after the other, Prometheus and Alertmanager, and the judgement."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rig.fleet import PromiseError
from rig.steadiness import Steadiness, Trend
from rig.watchers import Notification, Watchers, watching
from soak.deployment import Deployment
from soak.faults import FAULTS, Fault
from soak.judgement import Numbers, judge

USUAL_EVERY_S = 300.0
USUAL_FACTOR = 3.0
"""By which the rules' times are divided where a fault comes every five minutes: what is told of after two minutes, say,
is told of, mended and over before the next fault."""
MOST_FACTOR = 30.0
WARM_UP = 1.0
CALM_DOWN = 1.0
"""How long nothing happens before the first and after the last fault, in the time from fault to fault."""
MENDED_BY = 0.8
"""Of the time from fault to fault: until then it must have been told of and mended."""
LEAST_BOUND_S = 30.0
"""However fast faults follow each other: then those after it come later."""
SETTLE = 0.1
"""And so long it takes until what is left of it is over, and it counts as calm."""
COMPACT_EVERY = 2.0
"""The lake is compacted so often, in the time from fault to fault."""
RESOLVE_S = 400.0
FOREIGN = {"kafka", "venue"}
"""Shown, and not judged: Kafka maps the logs that it keeps, the simulated venue keeps minutes that were asked for."""
LASTING = {"Watchdog", "CandlesLateSlowly"}
"""What fires whatever happens: the one always, the other once all faults together have spent the budget of days."""


class Told(NamedTuple):
    """Of a fault: its beginning, its end (monotonic, s), and the beginning of the next one."""

    fault: Fault
    began_s: float
    mended_s: float
    next_s: float


class Row(NamedTuple):
    """Of the table of faults: seconds until each alert was told, and, once mended, until it was over."""

    fault: Fault
    lasted_s: float
    told_s: list[float | None]
    over_s: list[float | None]
    beside: list[str]


@dataclass
class Result:
    """What a soak has to show, and what is wrong; `stray` are alerts without a cause, in sentences."""

    rows: list[Row]
    trends: list[Trend]
    numbers: Numbers
    ends: dict[str, int]
    seconds: float
    stray: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Soak:
    """The state of one run."""

    def __init__(
        self,
        directory: Path,
        seed: int,
        *,
        every_s: float,
        rate: int,
        chosen: Sequence[Fault],
        say: Callable[[str], None],
        closing: ExitStack,
    ) -> None:
        self._every_s = every_s
        self._factor = min(USUAL_FACTOR * USUAL_EVERY_S / every_s, MOST_FACTOR)
        self._deployment = Deployment(directory, seed, rate, say, closing)
        self._deployment.compact_every_s = COMPACT_EVERY * every_s
        self._steadiness = Steadiness()
        self._closing = closing
        first, rest = ([fault for fault in chosen if fault.restarts is restarts] for restarts in (True, False))
        rng = random.Random(seed)
        self._faults = [*rng.sample(first, len(first)), *rng.sample(rest, len(rest))]
        self._told: list[Told] = []

    def run(self) -> Result:
        """Raises PromiseError when the run itself cannot go on; all else that is wrong is in the result."""
        deployment, timeline = self._deployment, self._deployment.timeline
        timeline(f"{len(self._faults)} faults, one every {self._every_s:g} s, rules {self._factor:g} times faster")
        deployment.start()
        deployment.fleet.chores.append(lambda: self._steadiness.look(deployment.processes))
        folder = deployment.directory / "watchers"
        watchers = self._closing.enter_context(watching(folder, deployment.targets, self._factor))
        began_s = time.monotonic()
        timeline("everything is at work")
        self._rest_until(began_s + self._every_s * WARM_UP)
        for number, fault in enumerate(self._faults, start=1):
            self._perform(fault, watchers, began_s + self._every_s * (number + WARM_UP))
        self._rest_until(time.monotonic() + self._every_s * CALM_DOWN)
        self._steadiness.is_calm = False
        missing = self._await_resolved(watchers)
        sent = list(watchers.sent)
        rows, stray, wrong = hold_alerts(self._told, sent, began_s)
        wrong += missing
        timeline("judging")
        numbers, wrong_rows = judge(deployment)
        trends = self._steadiness.trends()
        wrong += [
            *wrong_rows,
            *(sentence for trend in trends if trend.name not in FOREIGN for sentence in trend.wrong),
            *deployment.fleet.unexplained,
        ]
        return Result(rows, trends, numbers, dict(deployment.fleet.ends), timeline.now, stray, wrong)

    def _rest_until(self, until_s: float, after: str = "") -> None:
        """Let it be calm until then, after that fault."""
        self._deployment.fleet.wait(max(min(self._every_s * SETTLE, until_s - time.monotonic()), 0.0))
        self._steadiness.begin_calm(after)
        self._deployment.fleet.wait(max(until_s - time.monotonic(), 0.0))
        self._steadiness.is_calm = False

    def _perform(self, fault: Fault, watchers: Watchers, next_s: float) -> None:
        fleet, timeline = self._deployment.fleet, self._deployment.timeline
        bound_s = max(self._every_s * MENDED_BY, LEAST_BOUND_S)
        timeline(f"fault: {fault.name}")
        began_s = time.monotonic()
        with fault.broken(self._deployment):
            for alert in fault.alerts:
                told = fleet.wait_until(
                    lambda alert=alert: watchers.told_at(alert, began_s, fires=True) is not None,  # type: ignore[misc]
                    began_s + bound_s - time.monotonic(),
                )
                timeline(f"{alert} {'is told of' if told else 'IS NOT TOLD OF'}")
            fleet.wait(fault.lasts_s)
            mended_s = time.monotonic()
        timeline(f"mended after {mended_s - began_s:.1f} s")
        self._deployment.await_ready()
        self._rest_until(next_s, fault.name)
        self._told.append(Told(fault, began_s, mended_s, time.monotonic()))

    def _await_resolved(self, watchers: Watchers) -> list[str]:
        """Wait until nothing fires any more; what does all the same, in a sentence."""
        over = self._deployment.fleet.wait_until(
            lambda: watchers.firing() <= LASTING, max(RESOLVE_S, 1_000.0 / self._factor)
        )
        return [] if over else [f"in the end, with all mended, {sorted(watchers.firing() - LASTING)} still fire"]


def hold_alerts(
    told: Sequence[Told], sent: Sequence[Notification], began_s: float
) -> tuple[list[Row], list[str], list[str]]:
    """Hold who was told of what against what happened: a row for each fault; alerts without a cause, and what else is
    wrong, in sentences."""
    begins = _beginnings(sent)
    rows, stray, wrong = [], [], []
    early = {alert for at_s, alert in begins if at_s < (told[0].began_s if told else float("inf"))} - LASTING
    if early:
        stray.append(f"{sorted(early)} were told of before anything was broken")
    if not any(at_s >= began_s and alert == "Watchdog" for at_s, alert in begins):
        wrong.append("the watchdog was not heard")
    for number, (fault, fault_s, mended_s, _) in enumerate(told):
        next_s = told[number + 1].began_s if number + 1 < len(told) else float("inf")
        beside = {alert for at_s, alert in begins if fault_s <= at_s < next_s} - set(fault.alerts) - {"Watchdog"}
        told_s = [_first(sent, alert, fault_s, fires=True) for alert in fault.alerts]
        over_s = [_first(sent, alert, mended_s, fires=False) for alert in fault.alerts]
        row = Row(
            fault,
            mended_s - fault_s,
            [None if at_s is None or at_s >= next_s else at_s - fault_s for at_s in told_s],
            [None if at_s is None else at_s - mended_s for at_s in over_s],
            sorted(beside),
        )
        rows.append(row)
        for alert, after_s, resolved_s in zip(fault.alerts, row.told_s, row.over_s, strict=True):
            if after_s is None:
                wrong.append(f"{fault.name}: nobody was told by {alert}")
            elif resolved_s is None:
                wrong.append(f"{fault.name}: {alert} did not resolve")
        if without_cause := beside - fault.may - LASTING:
            stray.append(f"{fault.name}: {sorted(without_cause)} were told of as well, and do not follow of it")
    return rows, stray, wrong


def _beginnings(sent: Sequence[Notification]) -> list[tuple[float, str]]:
    """When each alert began to be told of: not what is told again, as it still fires."""
    firing: set[str] = set()
    begins = []
    for each in sent:
        if each.fires and each.alert not in firing:
            begins.append((each.at_s, each.alert))
        (firing.add if each.fires else firing.discard)(each.alert)
    return begins


def _first(sent: Sequence[Notification], alert: str, since_s: float, *, fires: bool) -> float | None:
    return next((each.at_s for each in sent if each.at_s >= since_s and each[2:] == (alert, fires)), None)


def run(
    directory: Path,
    seed: int,
    *,
    minutes: float,
    rate: int,
    chosen: Sequence[Fault] = FAULTS,
    say: Callable[[str], None],
) -> Result:
    """Run a soak of so many minutes, besides the start and the judgement. The directory is left to the caller.

    Raises PromiseError when the run cannot go on.
    """
    every_s = minutes * 60 / (len(chosen) + WARM_UP + CALM_DOWN)
    with ExitStack() as closing:
        soak = Soak(directory, seed, every_s=every_s, rate=rate, chosen=chosen, say=say, closing=closing)
        try:
            return soak.run()
        except PromiseError as error:
            raise PromiseError(f"seed {seed}, all logs in {directory}: {error}") from error
