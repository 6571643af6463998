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
from ashi.runtime.descriptors import descriptors_behind, lack_of_descriptors
from ashi_ingest.errors import classify_error
from ashi_sinks.sqlite.file import SqliteFile, explain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ashi_cli.onemachine.broker import Broker

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


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("command", "most"), [("topics check", (6, 7)), ("sink sqlite", (6, 8, 11)), ("aggregate", (8,))]
)
def test_a_command_that_has_too_few_names_them(
    kafka: Broker, command: str, most: tuple[int, ...], tmp_path: Path
) -> None:
    """More than Python itself needs, and fewer than the command: what fails first differs."""
    for number in most:
        done = subprocess.run(
            ["bash", "-c", f"ulimit -n {number}; exec {sys.executable} -m ashi_cli.main {command}"],
            env=os.environ
            | {
                "ASHI_KAFKA_BOOTSTRAP": kafka.bootstrap,
                "ASHI_METRICS_PORT": "0",
                "ASHI_STORAGE": f"sqlite:///{tmp_path}/candles.db",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in (1, 2)
        assert f"{SAID} {number} (`ulimit -n`)" in done.stderr, done.stderr
        assert "please report" not in done.stderr
