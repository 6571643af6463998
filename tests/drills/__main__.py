"""`make drills`: break everything once, and see who hears of it when. A quarter of an hour and more."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import yaml

from drills.breaking import DRILLS, FAST, FASTEST, SLOW, Drill
from drills.ground import JOBS, Ground, ground
from rig.watchers import MONITORING, Watchers, watching
from waits import until

QUIET_S = 240.0
"""How long what an earlier drill has left may take to be over."""
LASTING = {"Watchdog", "CandlesLateSlowly"}
"""What fires between drills: the one always, the other as drills make candles late, and it remembers that."""


class Outcome(NamedTuple):
    """What came of a drill for one alert: seconds to be told that it fires, and, once mended, that it does not."""

    alert: str
    what: str
    factor: float
    fired_s: float
    resolved_s: float
    tickets: list[str]


def severities() -> dict[str, str]:
    """Of each alert."""
    loaded = yaml.safe_load((MONITORING / "rules/ashi.rules.yaml").read_text(encoding="utf-8"))
    rules = [rule for group in loaded["groups"] for rule in group["rules"] if "alert" in rule]
    return {rule["alert"]: rule["labels"]["severity"] for rule in rules}


def alerts_of(factor: float) -> set[str] | None:
    """What is watched for; so fast as what takes days, nothing else: of its times too little is left."""
    if factor != FASTEST:
        return None
    return {alert for drill in DRILLS if drill.factor == FASTEST for alert in drill.alerts}


def perform(drill: Drill, broken: Ground, watchers: Watchers) -> list[Outcome]:
    """Break it, wait for the alerts, mend it, wait until they are over. Raises AssertionError for what goes wrong."""
    lasting = LASTING - set(drill.alerts)
    until(f"before {drill.alerts[0]} nothing fires", lambda: watchers.firing() <= lasting, QUIET_S, 0.5)
    began_s = time.monotonic()
    with drill.broken(broken):
        for alert in drill.alerts:
            until(
                f"{alert} is told of ({drill.what}); told were {watchers.notified(began_s)}",
                lambda alert=alert: watchers.told_at(alert, began_s, fires=True),  # type: ignore[misc]
                drill.bound_s,
            )
        mended_s = time.monotonic()  # before it is: what is over as soon as a process ends is over while that ends
    for alert in drill.alerts:
        until(
            f"{alert} is over once it is mended ({drill.what})",
            lambda alert=alert: watchers.told_at(alert, mended_s, fires=False),  # type: ignore[misc]
            drill.bound_s,
        )
    broken.tidy()
    time.sleep(3.0)
    severity = severities()
    pages = watchers.notified(began_s, receiver="pages") - set(drill.alerts) - set(drill.pages)
    assert not pages, f"{drill.alerts} ({drill.what}): {pages} paged too"
    tickets = sorted(watchers.notified(began_s, receiver="tickets") - set(drill.alerts) - LASTING)
    outcomes = []
    for alert in drill.alerts:
        fired_s = watchers.told_at(alert, began_s, fires=True)
        resolved_s = watchers.told_at(alert, mended_s, fires=False)
        assert fired_s is not None
        assert resolved_s is not None
        name = f"{alert} ({severity[alert]})"
        outcomes.append(Outcome(name, drill.what, drill.factor, fired_s - began_s, resolved_s - mended_s, tickets))
    return outcomes


def run(folder: Path, chosen: list[Drill]) -> tuple[list[Outcome], list[str]]:
    """Perform drills one after the other; gives what came of them, and what went wrong."""
    outcomes: list[Outcome] = []
    failures: list[str] = []
    with ground(folder) as broken, ExitStack() as watched:
        watchers: Mapping[float, Watchers] = {
            factor: watched.enter_context(
                watching(folder / f"watchers-{factor:g}", broken.targets, factor, alerts_of(factor))
            )
            for factor in (FAST, SLOW, FASTEST)
            if factor == FAST or any(drill.factor == factor for drill in chosen)
        }
        for factor, each in watchers.items():
            until(f"all answer ({factor:g})", lambda each=each: each.healthy_targets() == len(JOBS), 90, 0.5)  # type: ignore[misc]
        for name, metric in (
            ("aggregate", "ashi_candle_delay_seconds_count"),
            ("sink", "ashi_row_delay_seconds_count"),
        ):
            until(f"{name} is at work", lambda of=(name, metric): (broken.value(*of) or 0) > 10, 90, 0.5)  # type: ignore[misc]
        until("the watchdog is heard", lambda: watchers[FAST].told_at("Watchdog", 0.0, fires=True), 60)
        for drill in chosen:
            try:
                found = perform(drill, broken, watchers[drill.factor])
            except AssertionError as error:
                failures.append(str(error))
                print(f"FAILED {error}", flush=True)  # noqa: T201
                continue
            outcomes += found
            for outcome in found:
                print(row(outcome), flush=True)  # noqa: T201
    return outcomes, failures


def row(outcome: Outcome) -> str:
    """As a row of a table."""
    tickets = ", ".join(outcome.tickets) or "none"
    return (
        f"| {outcome.alert} | {outcome.what} | {outcome.factor:g} | {outcome.fired_s:.1f} | {outcome.resolved_s:.1f} "
        f"| {tickets} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="drills", description="Break everything once, and see who hears of it when.")
    parser.add_argument("alerts", nargs="*", help="those to drill (default: all)")
    parser.add_argument("--workdir", type=Path, help="where its files go (default: a temporary directory)")
    options = parser.parse_args()
    chosen = [drill for drill in DRILLS if not options.alerts or set(options.alerts) & set(drill.alerts)]
    folder = options.workdir or Path(tempfile.mkdtemp(prefix="ashi-drills-"))
    folder.mkdir(parents=True, exist_ok=True)
    _, failures = run(folder, chosen)
    sys.stderr.write("".join(f"drills: {failure}\n" for failure in failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
