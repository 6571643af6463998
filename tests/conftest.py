"""What all tests share: one real broker for each process that runs tests, and fresh topics for each test that asks."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import structlog
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from ashi.runtime import logs
from ashi.runtime.settings import Settings
from ashi_cli.main import main
from ashi_cli.onemachine.broker import Broker
from ashi_cli.onemachine.children import stop_all
from kafka_topics.fresh_topics import PARTITIONS, renew_topics
from servers.stages import Stage
from suite import java_cache
from suite.compiled_once import compile_share
from suite.running_order import in_order, scope_of

if TYPE_CHECKING:
    from servers.postgres import PostgresServer
    from servers.secured_kafka import SecuredKafka

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "50"))
"""Of each property that does not say how many itself; other ones in each run. `TEST_EXAMPLES=1000` looks for longer."""
# Timing belongs to the benchmarks: on a shared machine a deadline only makes tests flaky.
settings.register_profile("ashi", deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ashi")

# `make test &` in a script starts us with SIGINT ignored, nohup with SIGHUP. Children would inherit that, and some
# tests send them these.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# What one of the hundreds of Pythons that are started here has compiled, the next need not. Containers often forbid to
# keep it; then to rewrite the assertions alone takes each process that runs tests six seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

os.environ.setdefault("JDK_JAVA_OPTIONS", java_cache.java_options())

MAY_START_PROCESSES = {"kafka", "postgres", "processes", "outside"}

_running: pytest.Item | None = None


def pytest_sessionstart(session: pytest.Session) -> None:
    """Processes that share the tests also share the work of compiling them."""
    shared: dict[str, Any] | None = getattr(session.config, "workerinput", None)
    if shared is not None:
        compile_share(session.config, int(shared["workerid"].removeprefix("gw")), shared["workercount"])


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses the broker need not say so. Where processes share the tests, the longest come first."""
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.kafka)
    if "PYTEST_XDIST_WORKER" in os.environ:
        items[:] = in_order(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """What has been collected stays, so garbage need not be looked for among it.

    The first of several processes sees to it that brokers start faster.
    """
    gc.collect()
    gc.freeze()
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw0" and any(map(_has_kafka, session.items)):
        java_cache.make_in_background()


def _has_kafka(item: pytest.Item) -> bool:
    return item.get_closest_marker("kafka") is not None


class OneQueue(LoadScopeScheduling):  # type: ignore[misc]
    """Each process takes the next test, or the next module of those whose tests share something."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


@pytest.hookimpl(optionalhook=True)  # where the plugin is not loaded
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> OneQueue:
    """In the order of `running_order`, whatever `--dist` says."""
    config.option.loadscopereorder = False
    return OneQueue(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    global _running  # noqa: PLW0603 - an audit hook belongs to the process and stays for good
    _running = item
    try:
        return (yield)
    finally:
        _running = None


def only_marked_tests_start_processes(event: str, arguments: tuple[object, ...]) -> None:
    """So that `make test-fast` stays fast: who starts a process must have one of the marks that it leaves out."""
    if event != "subprocess.Popen" or _running is None:
        return
    if not MAY_START_PROCESSES & {mark.name for mark in _running.iter_markers()}:
        raise AssertionError(f"{_running.nodeid} starts {arguments[0]!r}: mark it with @pytest.mark.processes")


sys.addaudithook(only_marked_tests_start_processes)


@pytest.fixture(scope="session", autouse=True)
def no_settings_from_outside() -> None:
    """Settings of whoever runs the tests must not change them; those that say where Java is may."""
    for name in list(os.environ):
        if name.startswith("ASHI_") and name not in {"ASHI_JAVA", "ASHI_CACHE_DIR"}:
            del os.environ[name]


def _loggers() -> list[tuple[str, logging.Logger]]:
    """All that there are, but for the root."""
    known = list(logging.root.manager.loggerDict.items())
    return [(name, logger) for name, logger in known if isinstance(logger, logging.Logger)]


@pytest.fixture(autouse=True)
def logs_of_its_own() -> Iterator[None]:
    """What a test configures writes to that test's captured stderr, which is closed afterwards."""
    root, configured = logging.getLogger(), structlog.get_config()
    level, levels = root.level, {name: logger.level for name, logger in _loggers()}
    yield
    structlog.configure(**configured)
    root.setLevel(level)
    for name, logger in _loggers():
        logger.setLevel(levels.get(name, logging.NOTSET))
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, logs._Handler)]


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A real Apache Kafka, started once; it dies with the tests, however they end."""
    broker = Broker(Path(tmp_path_factory.mktemp("kafka")))
    broker.start(child=True, fresh=True)
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """A Kafka with TLS, logins and rights. `ashi` may do everything; nothing is granted to the users of stages."""
    from servers.secured_kafka import secured_kafka

    users = ("ashi", "ingest", "replay", "aggregate", "sink", "strategy", "chart")
    with secured_kafka(tmp_path_factory.mktemp("secured"), users, masters=("ashi",)) as kafka:
        yield kafka


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL, for tests that keep to a schema of their own and leave it running as it was.

    Not one for each module: where processes share the tests, those of a module are hardly ever neighbours, and what
    they share ends with each of them.
    """
    from servers.postgres import PostgresServer

    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture
def kafka_settings(kafka: Broker) -> Settings:
    """Settings whose Kafka has all topics of a deployment, each newly made and empty."""
    environment = {"ASHI_SESSION_TIMEOUT": "6s", "ASHI_PARTITIONS": str(PARTITIONS)}
    chosen = Settings.from_environment({"ASHI_KAFKA_BOOTSTRAP": kafka.bootstrap, **environment})
    asyncio.run(renew_topics(chosen))
    return chosen


class StartStage(Protocol):
    def __call__(self, *arguments: str, **env: str) -> Stage: ...


@pytest.fixture
def start_stage(kafka_settings: Settings, tmp_path: Path) -> Iterator[StartStage]:
    """Start stages against the test's Kafka; whatever is left of them is stopped when the test ends."""
    stages: list[Stage] = []

    def start(*arguments: str, **env: str) -> Stage:
        stages.append(Stage(kafka_settings, tmp_path / f"stage-{len(stages)}.log", arguments, env))
        return stages[-1]

    yield start
    # A member that was killed keeps the next test's group waiting for its session to expire.
    stop_all([stage.process for stage in stages], 10)


@pytest.fixture
def ashi(
    kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command against the test's Kafka; its exit status and what it printed to stdout and to stderr."""
    monkeypatch.setenv("ASHI_KAFKA_BOOTSTRAP", kafka_settings.kafka_bootstrap)
    monkeypatch.setenv("ASHI_PARTITIONS", str(kafka_settings.partitions))

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(list(arguments))
        return status, *capsys.readouterr()

    return run
