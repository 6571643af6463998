"""The settings of an aggregate worker."""

from __future__ import annotations

from dataclasses import dataclass, field

from ashi.runtime.settings.declare import setting
from ashi.runtime.settings.parsers import duration_between, group_name, integer_between, or_off, parse_switch


@dataclass(frozen=True)
class AggregateSettings:
    """When windows close and how long they can be corrected; with `timeframes` they belong to the state."""

    allowed_lateness_us: int = field(
        metadata=setting(
            duration_between("0s", "1d"),
            "2s",
            "How long after its end, by the trades' own times, a window waits for late trades before it closes.",
        )
    )
    correction_horizon_us: int = field(
        metadata=setting(
            duration_between("0s", "30d"),
            "2m",
            "How long after its end a closed candle is still corrected by late trades; later ones go to `trades.late`.",
        )
    )
    quiet_close: bool = field(
        metadata=setting(
            parse_switch,
            "on",
            "`on` closes the windows of a quiet market by wall time too, `off` by the trades' own times only.",
        )
    )
    flat_candles: int = field(
        metadata=setting(
            integer_between(0, 100_000),
            "1440",
            "Windows without trades give flat candles, at most so many in a row; `0` turns them off.",
        )
    )
    checkpoint_interval_us: int = field(
        metadata=setting(
            duration_between("50ms", "30s"),
            "500ms",
            "How often an aggregate worker makes its state durable: the stretch that a crash replays.",
        )
    )
    live_interval_us: int | None = field(
        metadata=setting(
            or_off(duration_between("50ms", "1h")),
            "250ms",
            "The least time between two updates of a candle in progress in `candles.live`. It grows by itself when "
            "updates would need more than a tenth of the worker's CPU, or 3 % of a core where that is more. `off` "
            "sends none.",
        )
    )
    native_fold: bool = field(
        metadata=setting(
            parse_switch,
            "on",
            "`on` folds trades by the native library, where it was built for this machine; `off` by Python, with the "
            "same result and some times slower.",
        )
    )
    instance_id: str | None = field(
        metadata=setting(
            group_name,
            None,
            "A name that only this worker has and keeps when it is restarted, such as its pod's in a StatefulSet: back "
            "within `ASHI_SESSION_TIMEOUT` it goes on with its partitions, and the other workers notice nothing.",
        )
    )
