"""What goes wrong, or is done, in a rehearsal, each to be chosen by its name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi_cli.onemachine.children import spawn, stop_all
from multihost.brokers import DISK, PORT
from multihost.deployment import AGGREGATES, MOST_AGGREGATES, SESSION_S
from servers.kafka_cluster import READY_S
from soak.deployment import READY_S as STAGE_READY_S

if TYPE_CHECKING:
    from multihost.harness import Rehearsal

LOST_PERCENT: Final = 5
DELAY_S: Final = 0.05
AWAY_S: Final = 20.0
"""Of a broker: twice as long as it takes the others to give up on it."""
PROXY: Final = Path(__file__).with_name("delaying_proxy.py")
PROXY_PORT: Final = 9192
LOSE: Final = f"""chain lose {{
    type filter hook input priority 0;
    iifname eth0 numgen random mod 100 < {LOST_PERCENT} drop
}}"""
REDIRECT: Final = f"""chain new_connections {{
    type nat hook prerouting priority dstnat;
    iifname eth0 tcp dport {PORT} redirect to :{PROXY_PORT}
}}
chain old_connections {{
    type filter hook input priority 0;
    iifname eth0 tcp dport {PORT} reject with tcp reset
}}"""
"""Connections that there were begin anew, through the proxy."""


class Fault(NamedTuple):
    """One thing that goes wrong.

    Attributes:
        name: to choose it by.
        what: in words.
        broken: breaks it, and mends it at the end of the block.
        lasts_s: how long it stays so.

    """

    name: str
    what: str
    broken: Callable[[Rehearsal], AbstractContextManager[None]]
    lasts_s: float = 0.0


@contextmanager
def _without(rehearsal: Rehearsal, node: int) -> Iterator[None]:
    trio, fleet = rehearsal.deployment.trio, rehearsal.deployment.fleet
    trio.kill(node)
    rehearsal.timeline(f"broker {node} was killed; the controller is {trio.controller}")
    yield
    trio.start(node)
    fleet.must(lambda: "Kafka Server started" in trio.log(node), READY_S, f"broker {node} does not start again")


@contextmanager
def broker_killed(rehearsal: Rehearsal) -> Iterator[None]:
    with _without(rehearsal, rehearsal.deployment.trio.one_that_leads()):
        yield


@contextmanager
def controller_killed(rehearsal: Rehearsal) -> Iterator[None]:
    with _without(rehearsal, rehearsal.deployment.trio.controller):
        yield


@contextmanager
def link_cut(rehearsal: Rehearsal) -> Iterator[None]:
    trio = rehearsal.deployment.trio
    node = trio.one_that_leads()
    rehearsal.timeline(f"broker {node} is cut off; the controller is {trio.controller}")
    with trio.hosts[node].cut_off():
        yield


@contextmanager
def packets_lost(rehearsal: Rehearsal) -> Iterator[None]:
    with ExitStack() as stack:
        for host in rehearsal.deployment.all_hosts:
            stack.enter_context(host.filtering(LOSE))
        yield


@contextmanager
def packets_delayed(rehearsal: Rehearsal) -> Iterator[None]:
    trio = rehearsal.deployment.trio
    node = trio.one_that_leads()
    host = trio.hosts[node]
    way = (str(PROXY_PORT), host.address, str(PORT), str(DELAY_S))
    proxy = spawn([*host.begin_with, sys.executable, str(PROXY), *way], stdout=subprocess.PIPE)
    try:
        assert proxy.stdout is not None
        assert proxy.stdout.readline(), "the proxy does not serve"
        rehearsal.timeline(f"what goes to and from broker {node} takes {DELAY_S:g} s longer, each way")
        with host.filtering(REDIRECT):
            yield
    finally:
        stop_all([proxy], 5.0)


@contextmanager
def _isolated(rehearsal: Rehearsal, name: str) -> Iterator[None]:
    deployment = rehearsal.deployment
    with deployment.fleet.cut_off(deployment.worker(name)), deployment.host_of[name].cut_off():
        yield


def worker_isolated(rehearsal: Rehearsal) -> AbstractContextManager[None]:
    return _isolated(rehearsal, "aggregate-1")


def feed_isolated(rehearsal: Rehearsal) -> AbstractContextManager[None]:
    return _isolated(rehearsal, "ingest-0")


def sink_isolated(rehearsal: Rehearsal) -> AbstractContextManager[None]:
    return _isolated(rehearsal, "postgres-0")


@contextmanager
def disk_full(rehearsal: Rehearsal) -> Iterator[None]:
    fleet, trio = rehearsal.deployment.fleet, rehearsal.deployment.trio

    def until(condition: Callable[[], bool]) -> None:
        fleet.must(condition, READY_S, f"broker {DISK}, whose disk is full, does not end")

    with trio.full_disk(until):
        yield


@contextmanager
def rolled(rehearsal: Rehearsal) -> Iterator[None]:
    """Each worker that is wanted, as it is: who reads a topic before who writes it."""
    for worker in rehearsal.workers_in_order():
        rehearsal.restart(worker)
    yield


@contextmanager
def versions_rolled(rehearsal: Rehearsal) -> Iterator[None]:
    """Back to the earlier version, and on to this one again, as docs/maintenance.md says.

    But for the sinks whose stores have a layout that the earlier version does not open, and for what it does not have.
    """
    left_alone = ("sqlite", "postgres", "chart", "strategy")
    workers = [worker for worker in rehearsal.workers_in_order() if not worker.name.startswith(left_alone)]
    for worker in reversed(workers):
        rehearsal.restart(worker, version="earlier")
    rehearsal.timeline("everybody else is of the earlier version")
    for worker in workers:
        rehearsal.restart(worker, version="now")
    yield


@contextmanager
def scaled(rehearsal: Rehearsal) -> Iterator[None]:
    deployment, fleet = rehearsal.deployment, rehearsal.deployment.fleet

    def scale(to: int) -> None:
        rehearsal.timeline(f"{to} aggregate workers from here on")
        workers = deployment.workers("aggregate")
        fleet.stop([worker for worker in workers[to:] if worker.wanted])
        for worker in workers[:to]:
            worker.wanted = True
        for number in range(len(workers), to):
            deployment.add_aggregate(number)
        fleet.must(
            lambda: all(worker.ready for worker in deployment.workers("aggregate")[:to]),
            STAGE_READY_S,
            f"{to} aggregate workers are not ready",
        )
        rehearsal.settle()

    for amount in (1, MOST_AGGREGATES, 2):
        scale(amount)
    yield
    scale(AGGREGATES)


FAULTS: Final = (
    Fault("broker-killed", "a broker that leads is killed", broker_killed, AWAY_S),
    Fault("controller-killed", "the controller is killed", controller_killed, AWAY_S),
    Fault("link-cut", "the link of a broker that leads is cut", link_cut, AWAY_S),
    Fault("packets-lost", f"{LOST_PERCENT} % of all packets are lost", packets_lost, 30.0),
    Fault("packets-delayed", f"a broker is {DELAY_S * 1000:.0f} ms further away, each way", packets_delayed, 30.0),
    Fault("worker-isolated", "an aggregate worker is cut off for two sessions", worker_isolated, 2 * SESSION_S),
    Fault("feed-isolated", "an ingest worker is cut off from the venue and Kafka", feed_isolated, 2 * SESSION_S),
    Fault("sink-isolated", "a sink is cut off from its store and Kafka", sink_isolated, 2 * SESSION_S),
    Fault("disk-full", "the disk of a broker is full", disk_full, AWAY_S),
    Fault("rolled", "each worker is restarted, one after the other", rolled),
    Fault("versions-rolled", "each worker to the earlier version, then back to this one", versions_rolled),
    Fault("scaled", "1, 4, 2 aggregate workers, and 3 again", scaled),
)
ROLLS: Final = frozenset({"rolled", "versions-rolled"})
