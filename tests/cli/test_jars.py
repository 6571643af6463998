"""The jar cache: whole or absent, and without network once it is there."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NoReturn

import jgo
import pytest
import requests

from ashi.contracts.errors import BrokerError
from ashi_cli.onemachine import jars

NAMES = ("kafka.jar", "clients.jar", "logger.jar")


class Artifact:
    def __init__(self, name: str, repository: Path) -> None:
        self.name = name
        self.repository = repository

    def resolve(self) -> Path:
        self.repository.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(self.repository / self.name, "w") as archive:
            archive.writestr("content", self.name * 100)
        return self.repository / self.name


def resolve(_coordinates: str) -> list[Artifact]:
    return [Artifact(name, Path(os.environ["M2_REPO"])) for name in NAMES]


def no_network(*_args: object, **_kwargs: object) -> NoReturn:
    raise AssertionError("the network was used")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test and a registry that serves NAMES."""
    monkeypatch.setenv("ASHI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(jgo, "resolve", resolve)
    return tmp_path / "cache"


def contents(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


def test_second_use_needs_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    first = jars.classpath(said.append)
    monkeypatch.setattr(jgo, "resolve", no_network)
    assert jars.classpath(no_network) == first
    assert [jar.name for jar in first] == list(NAMES)
    assert all(zipfile.is_zipfile(jar) for jar in first)
    assert "downloading" in said[0]
    assert contents(cache) == ["kafka-4.3.0", "lock"]


def test_the_users_own_maven_repository_is_left_alone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2_REPO", "/nowhere")
    jars.classpath()
    assert os.environ["M2_REPO"] == "/nowhere"


@pytest.mark.kafka
def test_the_real_jars_need_no_network_once_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    first = jars.classpath()
    monkeypatch.setattr(socket.socket, "connect", no_network)
    assert jars.classpath() == first
    assert len(first) == 46


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), requests.ConnectionError("cut off")])
def test_an_interrupted_download_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    def interrupted(self: Artifact) -> Path:
        if self.name == NAMES[1]:
            raise stop
        return whole(self)

    whole = Artifact.resolve
    monkeypatch.setattr(Artifact, "resolve", interrupted)
    with pytest.raises((KeyboardInterrupt, BrokerError)):
        jars.classpath()
    assert contents(cache) == ["lock"]
    monkeypatch.setattr(Artifact, "resolve", whole)
    assert len(jars.classpath()) == len(NAMES)


@pytest.mark.processes
def test_a_killed_download_is_cleared_away_by_the_next(cache: Path) -> None:
    script = (
        "import os, signal, jgo\n"
        "from ashi_cli.onemachine import jars\n"
        "jgo.resolve = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "jars.classpath()\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False, timeout=30)
    assert killed.returncode == -signal.SIGKILL
    assert [name for name in contents(cache) if name.startswith("download-")]
    assert len(jars.classpath()) == len(NAMES)
    assert contents(cache) == ["kafka-4.3.0", "lock"]


@pytest.mark.processes
def test_concurrent_starts_download_once(cache: Path, tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, zipfile, os, jgo\n"
        "from ashi_cli.onemachine import jars\n"
        "class A:\n"
        "    def resolve(self):\n"
        "        path = pathlib.Path(os.environ['REPO'], 'a.jar')\n"
        "        path.parent.mkdir()\n"
        "        zipfile.ZipFile(path, 'w').close()\n"
        "        return path\n"
        "def resolve(_):\n"
        "    os.environ['REPO'] = os.environ['M2_REPO']\n"
        "    print('downloads', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    return [A()]\n"
        "jgo.resolve = resolve\n"
        "jars.classpath(lambda text: print(text.split(';')[-1].strip(), flush=True) if 'waiting' in text else None)\n"
        "print('has the jars', flush=True)\n"
    )
    argv = [sys.executable, "-c", script]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(argv, **pipes) as first:  # type: ignore[call-overload]
        assert first.stdout.readline() == "downloads\n"
        with subprocess.Popen(argv, **pipes) as second:  # type: ignore[call-overload]
            assert second.stdout.readline() == "waiting for it\n"
            assert first.communicate("go\n", timeout=30)[0] == "has the jars\n"
            assert second.communicate(timeout=30)[0] == "has the jars\n"


@pytest.mark.parametrize("damage", ["truncated jar", "missing jar", "broken manifest", "other versions"])
def test_a_damaged_cache_is_downloaded_again(cache: Path, damage: str) -> None:
    first = jars.classpath()
    manifest = first[0].parent / "manifest.json"
    match damage:
        case "truncated jar":
            first[1].write_bytes(b"")
        case "missing jar":
            first[1].unlink()
        case "broken manifest":
            manifest.write_bytes(b"\0\0")
        case "other versions":
            manifest.write_text(manifest.read_text().replace("4.3.0", "4.2.0"))
    assert jars.classpath() == first
    assert all(zipfile.is_zipfile(jar) for jar in first)
    assert contents(cache) == ["kafka-4.3.0", "lock"]


def test_a_jar_that_arrives_damaged_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(self: Artifact) -> Path:
        jar = whole(self)
        jar.write_bytes(jar.read_bytes()[:-30])
        return jar

    whole = Artifact.resolve
    monkeypatch.setattr(Artifact, "resolve", cut)
    with pytest.raises(BrokerError, match=r"kafka\.jar arrived damaged"):
        jars.classpath()
    assert contents(cache) == ["lock"]


@pytest.mark.parametrize(
    ("cause", "advice"),
    [
        (requests.ConnectionError("name resolution failed"), "the first start needs the network"),
        (requests.Timeout("10 s"), "the first start needs the network"),
        (OSError(errno.ENOSPC, "No space left on device"), "free 100 MB there"),
        (RuntimeError("Artifact not found"), "lets Maven artifacts through"),
    ],
)
def test_failures_say_what_where_and_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch, cause: Exception, advice: str
) -> None:
    def failing(_coordinates: str) -> NoReturn:
        raise cause

    monkeypatch.setattr(jgo, "resolve", failing)
    with pytest.raises(BrokerError) as caught:
        jars.classpath()
    message = str(caught.value)
    assert advice in message
    assert str(cache) in message
    assert str(cause) in message


def test_a_cache_directory_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ASHI_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(BrokerError, match="set ASHI_CACHE_DIR to another directory"):
        jars.classpath()


@pytest.mark.parametrize(
    ("own", "shared", "expected"),
    [
        ("/own", "/shared", Path("/own")),
        (None, "/shared", Path("/shared/ashi")),
        (None, "relative", Path.home() / ".cache/ashi"),
        (None, None, Path.home() / ".cache/ashi"),
    ],
)
def test_where_the_cache_is(
    monkeypatch: pytest.MonkeyPatch, own: str | None, shared: str | None, expected: Path
) -> None:
    for name, value in (("ASHI_CACHE_DIR", own), ("XDG_CACHE_HOME", shared)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert jars.cache_directory() == expected


def test_java_comes_with_ashi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASHI_JAVA", raising=False)
    assert os.access(jars.java_executable(), os.X_OK)


def test_java_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "java"
    monkeypatch.setenv("ASHI_JAVA", str(java))
    with pytest.raises(BrokerError, match=r"ASHI_JAVA=.* is not there.*or unset it"):
        jars.java_executable()
    java.touch(mode=0o600)
    with pytest.raises(BrokerError, match=r"ASHI_JAVA=.* cannot be executed"):
        jars.java_executable()
    java.chmod(0o700)
    assert jars.java_executable() == java
