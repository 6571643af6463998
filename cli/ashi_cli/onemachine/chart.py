"""The chart as a stage on this machine: where it is, and whether it answers there."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from ashi.contracts.errors import UsageError

if TYPE_CHECKING:
    from ashi.runtime.settings import Settings

LOOPBACK: Final = "127.0.0.1"
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104  (to be told apart)
_ANSWER_S: Final = 0.2
_PORTS_ABOVE: Final = 20


@dataclass(frozen=True, slots=True)
class Chart:
    """Where the chart is, or would be.

    Attributes:
        host: as in ASHI_CHART_HOST.
        port: of TCP.
        base_path: begins and ends with a slash.

    """

    host: str
    port: int
    base_path: str

    @classmethod
    def of(cls, settings: Settings, port: int | None) -> Chart:
        """Where the settings say, but for the `port` if one is named."""
        port = settings.chart_port if port is None else port
        return cls(settings.chart_host, port or free_port(), settings.chart_base_path)

    def check_port(self) -> None:
        """Raise UsageError when the chart cannot have its port, with one that it can have."""
        if (reason := _why_not(self.host, self.port)) is None:
            return
        above = range(self.port + 1, min(self.port + _PORTS_ABOVE, 65_536))
        free = next((port for port in above if _why_not(self.host, port) is None), None)
        other = "choose another with --port" if free is None else f"--port {free} is free"
        raise UsageError(
            f"the chart cannot have port {self.port} of {self.host}: it {reason}; {other}, or stop what listens there"
        )

    def arguments(self) -> list[str]:
        """What follows `ashi` to serve it."""
        return ["chart", "--host", self.host, "--port", str(self.port)]

    def address(self, symbol: str | None = None, timeframe: str = "1m") -> str:
        """For a browser on this machine: of the page of all markets, or of the chart of one."""
        host = f"[{self._from_here}]" if ":" in self._from_here else self._from_here
        base = f"http://{host}:{self.port}{self.base_path}"
        if symbol is None:
            return base
        return f"{base}chart?" + urlencode({"symbol": symbol, "timeframe": timeframe}, safe=":")

    def answers(self) -> bool:
        """Whether somebody listens there."""
        try:
            socket.create_connection((self._from_here, self.port), _ANSWER_S).close()
        except OSError:
            return False
        return True

    @property
    def _from_here(self) -> str:
        return LOOPBACK if self.host in _EVERYWHERE else self.host


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        port: int = listener.getsockname()[1]
        return port


def _why_not(host: str, port: int) -> str | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            return "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror or error})"
    return None
