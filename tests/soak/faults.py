"""What goes wrong in a soak, and who must hear of it: the table that alerts and causes are held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, NamedTuple

from rig.writes import locked_database, open_transaction, publish, venue_fault
from soak.deployment import JOBS, NEVER, Deployment

NO_TRADE: Final = b"this is no trade"
MUTE: Final = 6
"""Of twenty markets: more than a fifth, which FeedSilent is about."""
BETWEEN_S: Final = 4.0
"""Between the ends of two workers that are killed one after the other."""

STANDSTILL: Final = frozenset({"CandlesLate", "CandlesLateSlowly", "LagGrowing", "Rebalancing"})
"""What may follow where partitions stand still for seconds. The rules' times are divided, those of a session are not:
what a deployment's rules let pass may be told of here."""


KAFKA: Final = frozenset({"KafkaDown", "CheckpointStalled", "RowsLate"})
STORE: Final = frozenset({"LagGrowing", "RowsLate"})


class Fault(NamedTuple):
    """One thing that goes wrong.

    Attributes:
        name: for people, and to choose it by.
        broken: breaks it, and mends it at the end of the block.
        alerts: must each fire, and resolve once it is mended; none: it is a matter of seconds, and nobody is told.
        may: others that may fire as well, as they follow of it.
        lasts_s: how long it goes on where no alert is waited for.
        restarts: whether processes of ours are started anew: these come first, so that the rest of the run shows
            whether they grow.

    """

    name: str
    broken: Callable[[Deployment], AbstractContextManager[None]]
    alerts: tuple[str, ...] = ()
    may: frozenset[str] = frozenset()
    lasts_s: float = 0.0
    restarts: bool = False


@contextmanager
def one_of_each_stage_killed(deployment: Deployment) -> Iterator[None]:
    """Each starts again within a second; the next is killed when it is ready."""
    for job in JOBS:
        deployment.kill(deployment.workers(job)[0])
        deployment.fleet.wait(BETWEEN_S)
        deployment.await_ready()
    yield


@contextmanager
def no_aggregate_worker(deployment: Deployment) -> Iterator[None]:
    workers = deployment.workers("aggregate")
    deployment.kill(*workers, again_in_s=NEVER)
    yield
    deployment.let_start(*workers)


@contextmanager
def venue_away(deployment: Deployment) -> Iterator[None]:
    venue = deployment.worker("venue")
    deployment.kill(venue, again_in_s=NEVER)
    yield
    deployment.let_start(venue)


@contextmanager
def markets_mute(deployment: Deployment) -> Iterator[None]:
    """Their connections stay and bring nothing, and REST, which would tell, refuses."""
    port = deployment.venue_port
    venue_fault(port, "rest_refuse", status=500, seconds=3_600.0)
    for market in deployment.markets[:MUTE]:
        venue_fault(port, "mute", market=market, seconds=0.0, resubscriptions=10_000)
    yield
    for market in deployment.markets[:MUTE]:
        venue_fault(port, "mute", market=market, seconds=0.1)
    venue_fault(port, "rest_refuse", status=500, seconds=0.0)


@contextmanager
def postgres_away(deployment: Deployment) -> Iterator[None]:
    deployment.postgres.take_away(0.99, NEVER)  # killed
    yield
    deployment.postgres.bring_back()


@contextmanager
def sqlite_locked(deployment: Deployment) -> Iterator[None]:
    with locked_database(deployment.directory / "candles.db"):
        yield


@contextmanager
def kafka_restarted(deployment: Deployment) -> Iterator[None]:
    """It ends as it is told to, and comes back at once."""
    deployment.fleet.broker_is_away(True)
    deployment.broker.stop()
    deployment.with_kafka()
    yield


@contextmanager
def kafka_away(deployment: Deployment) -> Iterator[None]:
    deployment.without_kafka()
    yield
    deployment.with_kafka()


@contextmanager
def transaction_left_open(deployment: Deployment) -> Iterator[None]:
    producer = open_transaction(deployment.settings, deployment.symbols[0])
    yield
    producer.abort_transaction(20)


@contextmanager
def garbage(deployment: Deployment) -> Iterator[None]:
    publish(deployment.settings, [(b"soak:NONE", NO_TRADE)])
    yield


FAULTS: Final = (
    Fault("no aggregate worker", no_aggregate_worker, ("WorkersAbsent",), STANDSTILL, restarts=True),
    Fault(
        "a worker of each stage is killed, and starts again",
        one_of_each_stage_killed,
        may=STANDSTILL | {"RowsLate"},
        restarts=True,
    ),
    Fault("Kafka restarts", kafka_restarted, may=STANDSTILL | KAFKA, restarts=True),
    Fault("Kafka is killed and stays away", kafka_away, ("KafkaDown",), STANDSTILL | KAFKA),
    Fault("the venue is away", venue_away, ("FeedDown",), frozenset({"ReconnectStorm"})),
    Fault(
        "six markets of twenty are mute, and REST refuses",
        markets_mute,
        ("FeedSilent",),
        frozenset({"TradesLate"}),  # once it lasts longer than the correction horizon, which is not divided
    ),
    Fault("PostgreSQL is killed and stays away", postgres_away, ("StoreDown",), STORE),
    Fault("the SQLite database is locked", sqlite_locked, ("StoreDown",), STORE),
    Fault("a transaction is left open in a partition", transaction_left_open, ("WatermarkStalled",), STANDSTILL),
    Fault("a record that is no trade", garbage, ("DeadLetters",)),
)
