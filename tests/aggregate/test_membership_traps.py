"""The traps of docs/faust.md about starting and being in a group: each twice, as in `test_faust_traps`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError, KafkaTimeoutError, UnknownError, for_code
from aiokafka.protocol.group import HeartbeatRequestStruct
from faust.assignor.client_assignment import ClientAssignment, ClientMetadata
from faust.tables.manager import TableManager
from faust_apps import PARTITIONS, SETTINGS, WAIT_S, our_app, plain_app, ticks

from ashi.contracts.errors import InstanceTakenError, StateError
from ashi.runtime.kafka.cluster.topic_ids import TopicIdentity
from ashi.runtime.service import Service
from ashi_aggregate.faust.app import HEARTBEAT_S
from ashi_aggregate.faust.membership import FENCED_INSTANCE_ID, InstanceGuard
from ashi_aggregate.faust.transport import FETCH_WAIT_MS
from ashi_aggregate.worker import _watch


def test_faust_lets_a_fetch_that_finds_nothing_hold_up_what_is_asked_after_it_and_ashi_hardly() -> None:
    """Trap: a broker answers a connection's requests one by one, and a fetch of idle changelogs waits for 1.5 s."""

    async def waits_ms(app: Any) -> int:
        client = app.consumer._thread._create_consumer(asyncio.get_running_loop())
        waited: int = client._fetch_max_wait_ms
        client._closed = True  # nothing was opened
        return waited

    assert asyncio.run(waits_ms(plain_app())) == 1_500
    assert asyncio.run(waits_ms(our_app())) == FETCH_WAIT_MS <= 200


def test_faust_hears_of_a_rebalance_with_a_heartbeat_of_seconds_and_ashi_at_once() -> None:
    """Trap: the others of the group stand still until the last member has heard that it rebalances."""
    assert plain_app().conf.broker_heartbeat_interval >= 3
    assert our_app().conf.broker_heartbeat_interval == HEARTBEAT_S <= 0.5


def test_fausts_tables_begin_after_a_second_and_ashis_at_once() -> None:
    """Trap: a start waits a second for tables that could still be declared."""

    async def pauses(app: Any) -> list[float]:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        tables = app.tables
        tables.sleep, tables._update_channels = sleep, ticks
        tables._recovery = SimpleNamespace(start=ticks)
        await tables.on_start()
        return slept

    assert type(plain_app().tables) is TableManager
    assert asyncio.run(pauses(plain_app())) == [1.0]
    assert asyncio.run(pauses(our_app())) == []


def test_faust_refuses_the_assignment_it_had_on_another_machine_and_ashi_takes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trap: an assignment names its member's machine, and a static member gets the one that it had before."""

    def app_on(machine: str, make: Callable[[], Any]) -> Any:
        monkeypatch.setattr("faust.types.settings.settings.Settings.NODE_HOSTNAME", machine)
        return make()

    def assignment_of(app: Any) -> ConsumerProtocolMemberAssignment:
        nothing = ClientAssignment(actives={}, standbys={})
        told = ClientMetadata(nothing, str(app.conf.canonical_url), {}, {}, {})
        return ConsumerProtocolMemberAssignment(4, [], app.assignor._compress(told.dumps()))

    for make in (plain_app, our_app):
        app_on("here", make).assignor.on_assignment(assignment_of(app_on("here", make)))
    with pytest.raises(AssertionError):
        app_on("here", plain_app).assignor.on_assignment(assignment_of(app_on("there", plain_app)))
    app_on("here", our_app).assignor.on_assignment(assignment_of(app_on("there", our_app)))


def test_the_library_cannot_tell_a_member_whose_instance_id_is_taken_from_one_whose_session_has_expired() -> None:
    """Trap: its heartbeats do not say which instance they are of, and it has no name for Kafka's answer."""
    assert for_code(FENCED_INSTANCE_ID) is UnknownError, "the library knows the error: take its own"
    for version in HeartbeatRequestStruct.__args__:
        assert "group_instance_id" not in version.SCHEMA.names, "heartbeats tell it: the guard may go"


def test_a_topic_that_grows_is_noticed_without_the_leader_of_the_group() -> None:
    """Trap: the leader watches how many partitions there are, but not one that came back with its instance id."""

    async def scenario() -> Any:
        app = our_app()
        await app.check_log(everything=False)
        assert not app.crashed
        app.probe.identity = grown
        await app.check_log(everything=False)
        return app._crash_reason

    async def grown() -> TopicIdentity:
        return TopicIdentity("first", dict.fromkeys(range(PARTITIONS + 1), 0))

    error = asyncio.run(scenario())
    assert isinstance(error, StateError)
    assert "has grown beyond 8 partitions" in str(error)


def test_faust_ends_its_recovery_over_a_late_answer_and_ashi_waits_for_it_and_asks_again() -> None:
    """Trap: when a wait has run out of time Faust believes that it has been stopped, and recovers never again."""

    async def asked_of(app: Any) -> tuple[int, bool]:
        """How often Kafka was asked, whose first answer comes too late, and whether the recovery goes on."""
        recovery: Any = app.tables.recovery
        asked: list[str] = []
        app.conf.broker_request_timeout, recovery.tables = 0.02, ["a table"]

        async def highwaters(*_: Any) -> None:
            asked.append("first" if not asked else "again")
            if asked == ["first"]:
                await asyncio.sleep(0.1)  # beyond the bound
                raise KafkaTimeoutError
            await asyncio.Event().wait()

        recovery._build_highwaters = highwaters
        recovery.signal_recovery_start.set()
        recovering = asyncio.create_task(recovery._restart_recovery(recovery))
        await asyncio.wait([recovering], timeout=0.3)
        goes_on = not recovering.done()
        recovering.cancel()
        return len(asked), goes_on

    assert asyncio.run(asked_of(plain_app())) == (1, False), "Faust waits: the workaround may go"
    assert asyncio.run(asked_of(our_app())) == (2, True)


def test_a_worker_that_never_takes_up_what_a_rebalance_gave_does_not_count_as_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trap: a worker that waits for ever for its group, or its recovery, makes checkpoints of nothing."""

    async def scenario() -> None:
        app, service = our_app(), Service("aggregate", SETTINGS)
        app.raise_if_dead = nothing
        starting: Any = asyncio.get_running_loop().create_future()
        watching = asyncio.create_task(_watch(service, app, starting, lambda: None))

        async def until(live: bool) -> None:
            async with asyncio.timeout(WAIT_S):
                while service.health.live()[0] is not live:
                    assert not watching.done()
                    app.pipeline.checkpoints += 1
                    await asyncio.sleep(0.01)

        await until(False)
        assert "the group's rebalance does not end" in service.health.live()[1]
        app.consumer._times.join(has_none=False)
        app.consumer._times.end([0])
        starting.set_result(None)
        await until(True)
        app.consumer._times.begin()
        await until(False)
        service.stopping.set()
        await watching

    def nothing() -> None:
        """No part of a client is there that could have died."""

    monkeypatch.setattr("ashi_aggregate.faust.app.TAKE_UP_REQUESTS", 0.5 / 60)
    monkeypatch.setattr("ashi_aggregate.worker.Collector", IdleCollector)
    asyncio.run(scenario())


class IdleCollector:
    """Leaves the collector of the tests' process alone."""

    def take_over(self, _now_s: float) -> None:
        pass

    def look(self, _now_s: float, *, is_busy: bool) -> None:
        pass


class FakeCoordinator:
    """What the library's coordinator has of its member, and a broker that answers its joins."""

    def __init__(self, *codes: int) -> None:
        self.member_id = ""
        self._closing = asyncio.get_running_loop().create_future()
        self._codes = list(codes)
        self.joined_as: list[str] = []

    async def _send_req(self, _request: Any) -> Any:
        return SimpleNamespace(error_code=self._codes.pop(0))

    async def _do_rejoin_group(self, _subscription: Any) -> bool:
        self.joined_as.append(self.member_id)
        try:
            answer = await self._send_req("join")
        except KafkaError:  # as the library does
            return False
        self.member_id = "" if answer.error_code else self.member_id or f"member-{len(self.joined_as)}"
        return not answer.error_code


def test_a_static_member_that_the_broker_has_forgotten_asks_under_its_old_member_id_why() -> None:
    async def scenario() -> None:
        coordinator, guard = FakeCoordinator(0, 25, 0, FENCED_INSTANCE_ID), InstanceGuard("pod-0")
        guard.watch(SimpleNamespace(_coordinator=coordinator))
        assert await coordinator._do_rejoin_group(None)
        coordinator.member_id = ""  # a heartbeat was told that it is not known
        assert not await coordinator._do_rejoin_group(None)
        assert await coordinator._do_rejoin_group(None), "its session had expired: it joins as a new member"
        assert coordinator.joined_as == ["", "member-1", ""]
        guard.raise_if_taken()

        coordinator.member_id = ""
        joining = asyncio.create_task(coordinator._do_rejoin_group(None))
        await ticks()
        assert coordinator.joined_as[-1] == "member-3"
        assert not joining.done(), "it does not join again, and so does not take the id back"
        with pytest.raises(InstanceTakenError, match=r"'pod-0' \(ASHI_INSTANCE_ID\)"):
            guard.raise_if_taken()
        coordinator._closing.set_result(None)
        assert not await joining

    asyncio.run(scenario())
