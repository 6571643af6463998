"""In which order tests run when several processes share them, and which of them stay in one process.

All are one queue, and each process takes the next as soon as it has ended one. The longest come first, so that none of
them is left for the end; those that mostly wait for other processes come between those that compute, so that the cores
are busy from the beginning to the end. A single process runs them as they were collected.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

LONGEST = (
    "chaos/test_chaos.py",
    "aggregate/test_election_kafka.py",
    "compatibility/test_recorded_kafka.py",
    "ingest/test_ingest_worker_kafka.py",
    "aggregate/test_moved_ground_kafka.py",
    "cli/test_up.py",
    "cli/test_demo.py",
    "aggregate/test_aggregate_kafka.py",
    "audit/test_rebuild.py",
    "aggregate/test_wrong_clock_kafka.py",
    "aggregate/test_handover_kafka.py",
    "cli/test_demo_live.py",
    "strategies/test_strategy_run_kafka.py",
    "ingest/test_outside_venue.py",
    "cli/test_broker.py",
    "client/test_client_kafka.py",
    "ingest/publish/test_ingest_publisher.py",
    "sinks/test_sink_kafka.py",
    "runtime/test_descriptors.py",
    "ingest/feed/test_feed_property.py",
    "ingest/test_venue_faults.py",
)
"""Modules with tests of many seconds, the longest first."""
SHARED = (
    ("aggregate/test_election_kafka.py",),
    ("compatibility/test_recorded_kafka.py",),
    ("compatibility/test_recorded_commands.py",),
    ("runtime/kafka/test_unreachable_kafka.py",),
    ("sinks/test_postgres_queries.py",),
    (
        "runtime/kafka/test_access_kafka.py",
        "runtime/kafka/test_refused_by_kafka.py",
        "security/test_refused_commands_kafka.py",
        "security/test_rights_kafka.py",
        "operations/test_doctor_secured_kafka.py",
    ),
)
"""Modules whose tests look at something that takes long to make, as a broker with users: those of a group run in one
process, one module after another. Elsewhere all processes would make it, and a fixture of a module for each test, since
tests of other modules come between."""
_GROUPS = {module: modules[0] for modules in SHARED for module in modules}
WAITING = frozenset({"kafka", "postgres", "processes"})
SECONDS = {"longest": 15.0, "waiting": 2.0, "slow": 2.0, "others": 0.05}
"""What tests take, roughly."""


def module_of(node_id: str) -> str:
    """The path of a test's module below `tests`."""
    path = node_id.partition("::")[0]
    return path.removeprefix(f"{TESTS.name}/")


def scope_of(node_id: str) -> str:
    """What runs in one process: a test by itself, or all of its module and of those that share something with it."""
    return _GROUPS.get(module_of(node_id), node_id)


def in_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The order for several processes."""
    place = {name: number for number, name in enumerate(LONGEST)}
    longest_first = sorted(items, key=lambda item: place.get(module_of(item.nodeid), len(place)))
    waiting = [item for item in longest_first if _waits(item)]
    computing = [item for item in longest_first if not _waits(item)]
    return _woven(waiting, computing)


def _woven(first: list[pytest.Item], second: list[pytest.Item]) -> list[pytest.Item]:
    """Both, so that they last equally long."""
    due = []
    for items in (first, second):
        whole_s = sum(map(_seconds, items))
        passed_s = 0.0
        for item in items:
            due.append((passed_s / whole_s, item))
            passed_s += _seconds(item)
    return [item for _, item in sorted(due, key=lambda each: each[0])]


def _waits(item: pytest.Item) -> bool:
    return any(mark.name in WAITING for mark in item.iter_markers())


def _seconds(item: pytest.Item) -> float:
    if module_of(item.nodeid) in LONGEST and _waits(item):
        return SECONDS["longest"]
    if _waits(item):
        return SECONDS["waiting"]
    return SECONDS["slow" if item.get_closest_marker("slow") else "others"]
