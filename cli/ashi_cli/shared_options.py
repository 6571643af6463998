"""What several commands take, and the settings that it goes into."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ashi_cli import values
from ashi_cli.declaration import Option, Positional

if TYPE_CHECKING:
    from ashi.runtime.settings import Settings

WORKDIR: Final = Path(".ashi")
"""Where the commands keep the broker's files, under the current directory; the demo has a folder of its own in it."""

STORAGE: Final = Option(
    "such as sqlite:////absolute/path.db or postgresql://user:password@host/database (default: ASHI_STORAGE, "
    "else candles.db here)",
    metavar="URL",
)
BEGIN: Final = Option(
    "only windows that begin then or later (ISO 8601, UTC)", flag="--from", metavar="TIME", parse=values.time
)
END: Final = Option("only windows that begin before that", flag="--to", metavar="TIME", parse=values.time)
PAST_BEGIN: Final = Option("start time, UTC", flag="--from", metavar="TIME", parse=values.time)
PAST_END: Final = Option(
    "end time, exclusive (default: one minute ago)", flag="--to", metavar="TIME", parse=values.time
)
"""Of what is asked of a venue: of the last minute REST may not list everything yet."""
MARKET: Final = Positional("by the venue's own name", metavar="MARKET")
MARKETS: Final = Positional("by the venue's own names", metavar="MARKET")
TOPIC: Final = "topic"
"""Stands for topic `trades` where a lake could be named."""
TRADES_IN: Final = Option(
    "where the trades are: in topic trades, or kept in a lake (default: %(default)s)",
    metavar="topic|LAKE_URL",
    parse=values.trades,
)
SYMBOLS: Final = Option("only this; repeatable", flag="--symbol", metavar="SYMBOL")


def tell(line: str) -> None:
    """Print how far it is, at once: somebody waits for it, or reads it through a pipe."""
    print(line, flush=True)


def settings_with(storage: str | None) -> Settings:
    """The settings of the environment, with this store if there is one. Raises UsageError."""
    from ashi.runtime.settings import Settings

    return Settings.from_environment(environment_with(storage))


def environment_with(storage: str | None) -> dict[str, str]:
    """The environment's variables, with ASHI_STORAGE of this value if there is one."""
    environment = dict(os.environ)
    if storage is not None:
        environment.pop("ASHI_STORAGE_FILE", None)
        environment["ASHI_STORAGE"] = storage
    return environment
