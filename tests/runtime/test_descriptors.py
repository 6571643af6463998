"""Too few file descriptors are named, whatever the library that lacked one says."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import aiohttp
import pytest

from ashi.contracts.errors import BrokerError, UsageError
from ashi.runtime.descriptors import (
    FEWEST_AT_START,
    descriptors_behind,
    lack_of_descriptors,
    prepare_descriptors,
)
from ashi_ingest.errors import classify_error
from ashi_sinks.sqlite.file import SqliteFile, explain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ashi_cli.onemachine.broker import Broker
    from conftest import StartStage

SAID = "too few file descriptors: this process may have"


@pytest.fixture
def none_left(tmp_path: Path) -> Iterator[None]:
    """This process can open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, hard))
    try:
        while True:
            try:
                taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in taken:
            os.close(number)


def test_an_error_that_came_from_too_few_says_so_whatever_it_was_turned_into() -> None:
    try:
        try:
            raise OSError(errno.EMFILE, "Too many open files")
        except OSError:
            raise UsageError("cannot serve metrics") from None
    except UsageError as error:
        said = descriptors_behind(error)
    assert said is not None
    assert said.startswith(SAID)
    assert "`ulimit -n`" in said
    assert "cannot serve metrics" in said
    assert "fs.file-max" in str(lack_of_descriptors(OSError(errno.ENFILE, "")))


def test_with_enough_of_them_no_error_is_blamed_on_them() -> None:
    assert descriptors_behind(BrokerError("cannot reach Kafka")) is None
    assert lack_of_descriptors(OSError(errno.ECONNREFUSED, "refused")) is None


@pytest.mark.usefixtures("none_left")
def test_where_the_reason_was_swallowed_it_is_found_by_trying() -> None:
    assert str(descriptors_behind(BrokerError("cannot reach Kafka"))).startswith(SAID)
    assert descriptors_behind(UsageError("no such store")) is None


@pytest.mark.usefixtures("none_left")
def test_a_feed_that_cannot_open_its_connection_says_so_and_tries_again() -> None:
    for error in (OSError(errno.EMFILE, "Too many open files"), aiohttp.ClientError("Cannot connect to host gmo")):
        found = classify_error(error)
        assert found.detail.startswith(SAID)
        assert found.retry_after_s == 0.0


@pytest.mark.usefixtures("none_left")
def test_a_store_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    store = SqliteFile(tmp_path / "candles.db")
    with pytest.raises(sqlite3.Error) as caught:
        store.open_for_writing()
    assert SAID in str(explain(caught.value, store.path, opening=True))


def run_with(most: int, command: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command that may have so many."""
    return subprocess.run(
        ["bash", "-c", f"ulimit -n {most}; exec {sys.executable} -m ashi_cli.main {command}"],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.kafka
def test_a_command_that_has_too_few_names_them(kafka: Broker) -> None:
    """More than Python itself needs, and fewer than the command."""
    for most in (6, 7):
        done = run_with(most, "topics check", {"ASHI_KAFKA_BOOTSTRAP": kafka.bootstrap})
        assert done.returncode == 1
        assert f"{SAID} {most} (`ulimit -n`)" in done.stderr, done.stderr


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize("command", ["aggregate", "sink sqlite", "ingest gmo BTC_JPY"])
def test_a_worker_that_may_have_too_few_says_so_before_it_begins(command: str, tmp_path: Path) -> None:
    """With 12 or 13 parts of its libraries died, and it waited for ever; with 24 it would, in a cluster of three."""
    env = {"ASHI_METRICS_PORT": "0", "ASHI_STORAGE": f"sqlite:///{tmp_path}/candles.db"}
    for most in (6, 13, 24):
        done = run_with(most, command, env)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert f"{SAID} {most} (`ulimit -n`)" in line
        assert f"needs {FEWEST_AT_START} more; raise that to 1024 or more" in line


def test_a_limit_that_may_be_raised_is_raised_and_not_an_error() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * FEWEST_AT_START:
        pytest.skip("the tests themselves may have too few")
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEWEST_AT_START, hard))
        prepare_descriptors()
        raised, kept = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised >= 2 * FEWEST_AT_START
    assert kept == hard


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux changes the limits of another process")
@pytest.mark.slow
def test_a_worker_that_runs_out_of_them_stops_in_good_order_and_says_so(
    start_stage: StartStage, tmp_path: Path
) -> None:
    storage = f"sqlite:///{tmp_path}/candles.db"
    workers = {
        "aggregating": start_stage("aggregate"),
        "storing candles": start_stage("sink", "sqlite", ASHI_STORAGE=storage),
        "started": start_stage("ingest", "gmo", "BTC_JPY", ASHI_WEBSOCKET_URL="ws://127.0.0.1:9"),
    }
    for text, worker in workers.items():
        worker.wait_for("ready" if text == "aggregating" else text)
        resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE, (16, 16))
    for worker in workers.values():
        assert worker.process.wait(40) == 1
        said = worker.log.read_text()
        assert "stopping, file descriptors have run out" in said
        assert f"{SAID} 16 (`ulimit -n`)" in said.splitlines()[-1] + said.splitlines()[-2], said
        assert "please report" not in said
