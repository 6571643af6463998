"""The settings of a sink."""

from __future__ import annotations

from dataclasses import dataclass, field

from ashi.runtime.settings.declare import setting
from ashi.runtime.settings.parsers import duration_between, group_name, integer_between, parse_url


@dataclass(frozen=True)
class SinkSettings:
    """Where a sink stores what it reads, and how much at once."""

    storage: str = field(
        repr=False,
        metadata=setting(
            parse_url,
            "sqlite:///candles.db",
            "Where sinks store candles, a URL as in SQLAlchemy (`sqlite:////absolute/path.db`); it may hold a "
            "password.",
            secret=True,
        ),
    )
    sink_group: str | None = field(
        metadata=setting(
            group_name,
            None,
            "Consumer group of a sink: the workers of one store share it, a second store of its kind needs another.",
            when_unset="`ashi-sink-` and the kind of store",
        )
    )
    sink_batch_size: int = field(
        metadata=setting(
            integer_between(1, 100_000),
            "5000",
            "Most candles (or trades) that a sink writes at once; not set, it is 20000 for the lake.",
        )
    )
    sink_batch_interval_us: int = field(
        metadata=setting(
            duration_between("1ms", "1m"),
            "200ms",
            "Longest that a candle waits in a sink for others to be written with it; not set, it is 10s for the lake.",
        )
    )
    lake_compact_interval_us: int = field(
        metadata=setting(
            duration_between("0s", "7d"),
            "0s",
            "How often a worker of a lake merges the small files of the tables that it writes to, such as `1h`; `0s`: "
            "never, `ashi lake compact` does it.",
        )
    )
    lake_vacuum_interval_us: int = field(
        metadata=setting(
            duration_between("0s", "30d"),
            "0s",
            "How often a worker of a lake removes the files that are out of use from them, such as `1d`; `0s`: never, "
            "`ashi lake vacuum` does it.",
        )
    )
    lake_retention_us: int = field(
        metadata=setting(
            duration_between("1h", "3650d"),
            "7d",
            "How long a file must have been out of use for a worker to remove it: longer than any reader takes.",
        )
    )
