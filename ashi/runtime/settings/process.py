"""How a process tells what it does."""

from __future__ import annotations

from dataclasses import dataclass, field

from ashi.runtime.settings.declare import setting
from ashi.runtime.settings.parsers import one_of, parse_port


@dataclass(frozen=True)
class ProcessSettings:
    """Its metrics, its health and its logs."""

    metrics_host: str = field(
        metadata=setting(str, "127.0.0.1", "Address that `/metrics`, `/live` and `/ready` are served on.")
    )
    metrics_port: int = field(
        metadata=setting(parse_port, "0", "TCP port of the same; `0` takes a free one and logs it.")
    )
    log_format: str = field(
        metadata=setting(
            one_of("auto", "json", "console"),
            "auto",
            "`json` (one object a line), `console` (for people) or `auto`: `console` on a terminal, else `json`.",
        )
    )
    log_level: str = field(
        metadata=setting(
            one_of("debug", "info", "warning", "error"),
            "info",
            "Least level logged: `debug`, `info`, `warning` or `error`; libraries log from `warning` on unless "
            "`debug`.",
        )
    )
