"""The settings of the chart's server."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from ashi.runtime.settings.declare import Secret, setting
from ashi.runtime.settings.parsers import integer_between, one_line, parse_port

SHORTEST_TOKEN: Final = 16
"""In characters: a shorter one can be guessed."""
_BASE_PATH = re.compile(r"/?([A-Za-z0-9_~-][A-Za-z0-9._~-]*(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*)?/?", re.ASCII)
_TOKEN = re.compile(r"[!-~]+", re.ASCII)


def base_path(text: str) -> str:
    """A path of a URL, with a slash at both ends."""
    if _BASE_PATH.fullmatch(text) is None or len(text) > 200:
        raise ValueError("write a path of letters, digits, hyphens, underscores, dots and slashes, such as /ashi")
    path = text.strip("/")
    return f"/{path}/" if path else "/"


def origins(text: str) -> tuple[str, ...]:
    """`https://charts.example.com,…`, in lower case as browsers send them."""
    found = tuple(each.strip().lower().rstrip("/") for each in text.split(",") if each.strip())
    for origin in found:
        parts = urlsplit(origin)
        if parts.scheme not in {"http", "https"} or not parts.hostname or origin != f"{parts.scheme}://{parts.netloc}":
            raise ValueError("write origins, each a scheme and a host, such as https://charts.example.com, no path")
    return found


def access_token(text: str) -> Secret:
    """What is shown to be let in."""
    if len(text) < SHORTEST_TOKEN or _TOKEN.fullmatch(text) is None:
        raise ValueError(f"write at least {SHORTEST_TOKEN} letters, digits and signs, without spaces")
    return Secret(text)


@dataclass(frozen=True)
class ChartSettings:
    """Where the chart is served, and to whom."""

    chart_host: str = field(
        metadata=setting(
            one_line,
            "127.0.0.1",
            "Address that the chart is served on; `0.0.0.0` serves every machine that can reach this one.",
        )
    )
    chart_port: int = field(metadata=setting(parse_port, "8080", "TCP port of the same; `0` takes a free one."))
    chart_base_path: str = field(
        metadata=setting(
            base_path,
            "/",
            "Path that the chart is served below, such as `/ashi`, for a proxy that serves other things beside it.",
        )
    )
    chart_origins: tuple[str, ...] = field(
        metadata=setting(
            origins,
            "",
            "Origins of pages that may ask, such as `https://charts.example.com`, with commas in between: for a proxy "
            "that changes the Host. The chart's own pages always may.",
        )
    )
    chart_token: Secret | None = field(
        metadata=setting(
            access_token,
            None,
            "What must be shown to see data, at least 16 characters: a page is opened with `#token=…` at the end of "
            "its address.",
            secret=True,
        )
    )
    chart_clients: int = field(
        metadata=setting(
            integer_between(1, 100_000),
            "1000",
            "Most pages that may be connected at once; one more is told to come later.",
        )
    )
