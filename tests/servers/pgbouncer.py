"""A real PgBouncer before a server of `servers.postgres`, that of Debian's package."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from ashi_cli.onemachine.children import _death_pact
from servers.free_ports import free_port
from servers.postgres import PASSWORD, QUOTED_PASSWORD, USER, PostgresServer

MODES = ("session", "transaction", "statement")
START_TIMEOUT_S = 20


def find_pgbouncer() -> str | None:
    """The program; Debian has it where not every user's PATH leads."""
    return shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class PgBouncer:
    """A pooler with a database for each of its modes, `session` and so on, all of them the server's `postgres`."""

    def __init__(self, server: PostgresServer, **pool_sizes: int) -> None:
        program = find_pgbouncer()
        assert program is not None
        self.home = Path(tempfile.mkdtemp(prefix="ashi-pgbouncer-"))
        self.home.chmod(0o755)
        user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
        self.port = free_port()
        (self.home / "users").write_text(f'"{USER}" "{PASSWORD}"\n')
        databases = "\n".join(
            f"{mode} = host=127.0.0.1 port={server.port} dbname=postgres pool_mode={mode} "
            f"pool_size={pool_sizes.get(mode, 20)}"
            for mode in MODES
        )
        # All else is as the package has it: nothing is ignored that a client asks for at the start.
        (self.home / "ini").write_text(
            f"[databases]\n{databases}\nnowhere = host=127.0.0.1 port={server.port} dbname=nowhere\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {self.home / 'users'}\nserver_login_retry = 1\n"
        )
        self.log = self.home / "log"
        main = threading.current_thread() is threading.main_thread()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, str(self.home / "ini")], user=user, cwd="/", stdout=log, stderr=log, start_new_session=True,
                preexec_fn=_death_pact(os.getpid()) if main else None,  # noqa: PLW1509 - as in `spawn`
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._listens():
            assert self._process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def url(self, mode: str, options: str = "", user: str = USER) -> str:
        return f"postgresql://{user}:{QUOTED_PASSWORD}@127.0.0.1:{self.port}/{mode}{'?' if options else ''}{options}"

    def remove(self) -> None:
        self._process.kill()
        self._process.wait(60)
        shutil.rmtree(self.home, ignore_errors=True)
