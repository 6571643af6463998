"""Finding out the facts: step by step on the way in to Kafka, then all that it tells at once, then the store.

What fails is a fact as well: the steps behind it are not tried, and say so.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from ashi.contracts.access import access_table
from ashi.contracts.errors import AshiError, BrokerError
from ashi.contracts.topics import topic_specs
from ashi.runtime.kafka.authentication.certificates import own_certificate, shown_by
from ashi.runtime.kafka.cluster.access import rights_lacking
from ashi.runtime.kafka.cluster.survey import Survey
from ashi.runtime.kafka.cluster.topics import topic_problems
from ashi.runtime.kafka.connections.errors import can_connect, who_asks
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.settings.kafka import OAUTHBEARER
from ashi.runtime.settings.parsers import redact_url
from ashi.runtime.wall_clock import now_us
from ashi_aggregate.epoch import current_epoch, differs_from
from ashi_operations.doctor.facts import (
    Address,
    Certificates,
    Clocks,
    EpochFacts,
    Fact,
    Facts,
    Partitions,
    Right,
    ShownCertificate,
    StoreFacts,
    TopicDifference,
    Topics,
    Waiting,
)
from ashi_operations.doctor.judge import principal
from ashi_operations.status.watch import Watch
from ashi_sinks.registry import examine_store, store_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from ashi.contracts.access import Access
    from ashi.runtime.kafka.cluster.survey import ClusterView
    from ashi.runtime.settings import Settings
    from ashi_operations.problem import Problem
    from ashi_operations.status.snapshot import Snapshot

STEP_S: Final = 15.0
"""How long one question may take."""
HEARTBEAT_WAIT_S: Final = 11.0
"""A feed says something every ten seconds."""
STRATEGY: Final = "ashi-strategy-doctor"
"""As whom a strategy's rights are asked for where there is none yet; nothing is written under it."""
_NEEDS_KAFKA: Final = "Kafka does not let us in, see above"
_FEED_CODES: Final = ("feeds.",)
_GROUP_CODES: Final = ("group.absent", "group.unowned", "group.rebalancing", "group.idle", "group.lost", "group.lag")

_T = TypeVar("_T")


class Examiner:
    """Asks everything about one deployment, once."""

    def __init__(self, settings: Settings, stages: Sequence[str], *, store: bool) -> None:
        """`stages`: the commands that this user is meant to run; none: not said. `store`: whether one is named."""
        self._settings = settings
        self._stages = stages
        self._has_store = store

    async def facts(self) -> Facts:
        """All of them. Raises nothing but for mistakes of ours."""
        store = asyncio.create_task(self._store())
        addresses, certificates = await self._way_in()
        asked = Survey(self._settings)
        try:
            login = await _fact(self._enter(asked))
            if login.value:
                told = await self._ask(asked)
                addresses = await _fact(self._all_addresses(addresses.value or (), asked.advertised))
            else:
                told = {}
            return self._facts(addresses, certificates, login, told, await store)
        finally:
            await asked.close()
            store.cancel()

    def _facts(
        self,
        addresses: Fact[Sequence[Address]],
        certificates: Fact[Certificates],
        login: Fact[bool],
        told: Mapping[str, Fact[Any]],
        store: Fact[StoreFacts],
    ) -> Facts:
        settings = self._settings

        def of(name: str) -> Fact[Any]:
            return told.get(name, Fact(skipped=_NEEDS_KAFKA))

        kind = store_name(settings.storage) if self._has_store else ""
        certificate = None
        if settings.kafka_cert_file is not None:
            try:
                certificate = own_certificate(settings.kafka_cert_file).subject
            except OSError:
                certificate = "<subject of the certificate>"
        return Facts(
            now=now_us(),
            bootstrap=settings.kafka_bootstrap,
            prefix=settings.topic_prefix,
            user=who_asks(settings),
            principal=principal(
                settings.kafka_username,
                token=settings.kafka_sasl_mechanism == OAUTHBEARER,
                certificate=certificate,
            ),
            addresses=addresses,
            certificates=certificates,
            login=login,
            versions=of("versions"),
            partitions=of("partitions"),
            rights=of("rights"),
            chosen=self._stages,
            topics=of("topics"),
            retention=of("retention"),
            epoch=of("epoch"),
            groups=of("groups"),
            feeds=of("feeds"),
            clocks=of("clocks"),
            store=store,
            store_kind=kind,
            store_url=redact_url(settings.storage) if self._has_store else "",
        )

    async def _way_in(self) -> tuple[Fact[Sequence[Address]], Fact[Certificates]]:
        """Whether the addresses answer, and what certificates they show."""
        given = given_addresses(self._settings)
        troubles = await asyncio.gather(*(can_connect(address) for address in given))
        addresses = [
            Address(_written(address), True, trouble) for address, trouble in zip(given, troubles, strict=True)
        ]
        if not self._settings.kafka_security_protocol.endswith("SSL"):
            without = f"no TLS is used (ASHI_KAFKA_SECURITY_PROTOCOL is {self._settings.kafka_security_protocol})"
            return Fact(addresses), Fact(skipped=without)
        answering = [address for address, trouble in zip(given, troubles, strict=True) if trouble is None]
        return Fact(addresses), await _fact(self._certificates(answering))

    async def _certificates(self, addresses: Sequence[tuple[str, int]]) -> Certificates:
        good: list[ShownCertificate] = []
        refused: dict[str, str] = {}
        for host, port in addresses:
            at = _written((host, port))
            try:
                shown = await shown_by(self._settings, host, port)
            except (OSError, TimeoutError) as error:
                refused[at] = f"does not speak TLS as we do ({error or type(error).__name__})"
                continue
            if shown.refused is not None:
                refused[at] = shown.refused
            good += [ShownCertificate(at, each.subject, each.not_after) for each in shown.chain]
        if self._settings.kafka_cert_file is not None:
            own = own_certificate(self._settings.kafka_cert_file)
            good.append(ShownCertificate("ASHI_KAFKA_CERT_FILE", own.subject, own.not_after))
        return Certificates(good, refused)

    async def _enter(self, asked: Survey) -> bool:
        await asked.open()
        return True

    async def _all_addresses(self, given: Sequence[Address], advertised: Sequence[str]) -> Sequence[Address]:
        known = {each.address for each in given}
        others = [address for address in advertised if address not in known]
        troubles = await asyncio.gather(*(can_connect(_parted(address)) for address in others))
        return [*given, *(Address(at, False, trouble) for at, trouble in zip(others, troubles, strict=True))]

    async def _ask(self, asked: Survey) -> dict[str, Any]:
        """All that Kafka tells, by the names of the facts."""
        found = await _fact(asked.cluster())
        if found.value is None:
            return {"partitions": found}
        cluster = found.value
        watch = Watch(self._settings)
        watch.start()
        try:
            rights, topics, epoch, snapshot = await asyncio.gather(
                _fact(self._rights(asked)),
                _fact(self._topics(asked, cluster)),
                _fact(self._epoch()),
                self._look(watch),
            )
            retention = await _fact(self._retention(asked, snapshot))
            return {
                "versions": Fact(asked.api_versions),
                "partitions": Fact(self._partitions(cluster)),
                "rights": rights,
                "topics": topics,
                "epoch": epoch,
                "retention": retention,
                "groups": _problems(snapshot, snapshot.stages, "stages and stores", _GROUP_CODES),
                "feeds": _feeds(snapshot),
                "clocks": Fact(Clocks(watch.clock_ahead_s, watch.ingest_clocks)),
            }
        finally:
            await watch.close()

    async def _look(self, watch: Watch) -> Snapshot:
        await watch.wait_for_past(STEP_S)
        snapshot = await watch.look(STEP_S)
        if watch.knows_feeds:
            await watch.wait_for_clock(HEARTBEAT_WAIT_S)
        return snapshot

    def _partitions(self, cluster: ClusterView) -> Partitions:
        return Partitions(
            [self._place(topic, number) for topic, view in cluster.topics.items() for number in view.leaderless],
            [self._place(topic, number) for topic, view in cluster.topics.items() for number in view.under_replicated],
            sum(len(view.partitions) for view in cluster.topics.values()),
        )

    def _place(self, topic: str, number: int) -> str:
        return f"{kafka_name(self._settings, topic)}/{number}"

    async def _rights(self, asked: Survey) -> dict[str, list[Right]]:
        kind = self._settings.sink_group or f"ashi-sink-{store_name(self._settings.storage)}"
        strategies = [name for name in await asked.groups() if name.startswith("ashi-strategy-")]
        names = {"ashi-sink-*": kind, "ashi-strategy-*": strategies[0] if strategies else STRATEGY}
        table = access_table(self._settings.timeframes)
        chosen = {name: access for name, access in table.items() if not self._stages or name in self._stages}
        return {command: await self._lacking(_named(access, names)) for command, access in chosen.items()}

    async def _lacking(self, access: Access) -> list[Right]:
        return [
            Right(kind.replace("_", " "), kafka_name(self._settings, name), str(operation))
            for kind, name, operation in await rights_lacking(self._settings, access)
            if operation is not None  # a topic that is missing is told by another check
        ]

    async def _topics(self, asked: Survey, cluster: ClusterView) -> Topics:
        specs = topic_specs(self._settings.partitions, self._settings.timeframes)
        there = [spec.name for spec in specs if spec.name in cluster.topics]
        configs = await asked.configs(there)
        existing = {name: view.partitions for name, view in cluster.topics.items()}
        problems = topic_problems(self._settings, specs, existing, configs)
        return Topics(
            len(specs),
            [
                TopicDifference(each.topic, each.missing, "partitions, not" in each.what, str(each), each.command)
                for each in problems
            ],
            [kafka_name(self._settings, name) for name in there if name not in configs],
        )

    async def _retention(self, asked: Survey, snapshot: Snapshot) -> list[Waiting]:
        lags = [
            (group.group, lag)
            for group in [*(snapshot.stages or ()), *(snapshot.stores or ())]
            for lag in group.lags or ()
        ]
        configs = await asked.configs(sorted({lag.topic for _, lag in lags}))
        if lags and not configs:
            raise BrokerError("the settings of the topics are not shown to this user, who needs DescribeConfigs")
        waiting = []
        specs = topic_specs(self._settings.partitions, self._settings.timeframes)
        specified = {spec.name: float(spec.config.get("retention.ms", "0")) / 1_000 for spec in specs}
        for group, lag in lags:
            config = configs.get(lag.topic, {})
            kept_ms = float(config.get("retention.ms", "-1"))
            if "delete" in config.get("cleanup.policy", "") and kept_ms > 0:
                kept_s = specified.get(lag.topic, 0.0)
                waiting.append(Waiting(group, lag.topic, lag.seconds, kept_ms / 1_000, kept_s))
        return waiting

    async def _epoch(self) -> EpochFacts | None:
        epoch = await current_epoch(self._settings)
        if epoch is None:
            return None
        return EpochFacts(epoch.epoch, str(epoch), differs_from(self._settings, epoch))

    async def _store(self) -> Fact[StoreFacts]:
        if not self._has_store:
            return Fact(skipped="no store is named: --storage URL, or ASHI_STORAGE")
        return await _fact(asyncio.to_thread(self._examine))

    def _examine(self) -> StoreFacts:
        found = examine_store(self._settings.storage)
        return StoreFacts(found.where, found.version, found.latest, found.lacking, found.free_bytes, found.total_bytes)


async def _fact(work: Awaitable[_T]) -> Fact[_T]:
    """What comes of asking, or why nothing does."""
    try:
        async with asyncio.timeout(STEP_S):
            return Fact(await work)
    except TimeoutError:
        return Fact(why=f"no answer within {STEP_S:g} s")
    except AshiError as error:
        return Fact(why=redact_url(str(error)))
    except OSError as error:
        return Fact(why=error.strerror or str(error))


def _problems(
    snapshot: Snapshot, known: object, what: str, codes: Sequence[str]
) -> Fact[Sequence[tuple[str, str, str, str, str]]]:
    """The problems of some codes, or why they are not known."""
    reasons = [each.reason for each in snapshot.unknown if each.what in {what, "everything"}]
    if known is None or reasons:
        return Fact(why="; ".join(reasons) or "Kafka did not say")
    return Fact([_plain(problem) for problem in snapshot.problems if problem.code.startswith(tuple(codes))])


def _feeds(snapshot: Snapshot) -> Fact[Sequence[tuple[str, str, str, str, str]]]:
    if snapshot.feeds is not None and not snapshot.feeds.symbols:
        return Fact(skipped="no worker has ever read a venue live")
    return _problems(snapshot, snapshot.feeds, "feeds", _FEED_CODES)


def _plain(problem: Problem) -> tuple[str, str, str, str, str]:
    found: tuple[str, str, str, str, str] = msgspec.structs.astuple(problem)
    return found


def _named(access: Access, names: Mapping[str, str]) -> Access:
    """The same rights, for a group or an id of the table that stands for many."""
    group, writer = access.group, access.transactional_id
    return type(access)(
        access.topics,
        None if group is None else names.get(group, group),
        None if writer is None else names.get(writer, writer),
    )


def given_addresses(settings: Settings) -> list[tuple[str, int]]:
    """The brokers of ASHI_KAFKA_BOOTSTRAP."""
    return [_parted(address.strip()) for address in settings.kafka_bootstrap.split(",")]


def _parted(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _written(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
