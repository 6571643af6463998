"""Reading the text of a setting. Each parser raises ValueError with what to write instead, never repeating the text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from ashi.contracts.errors import ContractError
from ashi.contracts.timeframe import MICROSECONDS_PER_UNIT, Timeframe, parse_timeframes

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TOPIC_PREFIX: Final = 200
"""With it the longest name of a topic of Ashi, that of a changelog, is within Kafka's 249 characters."""
MAX_GROUP_NAME: Final = 200
"""In characters, of a member of a group too; Kafka takes 249 of an instance id."""
MICROSECONDS: Final = {"ms": 1_000} | MICROSECONDS_PER_UNIT

_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)", re.ASCII)
_INTEGER = re.compile(r"[0-9]{1,9}", re.ASCII)
_ADDRESS = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", re.ASCII)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://.*", re.ASCII)
_GROUP = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_PREFIX = re.compile(r"[A-Za-z0-9._-]*", re.ASCII)
_URL_PASSWORD = re.compile(r"(?<=:/)(/?[^/@:\s]*):\S*@")


def parse_duration(text: str) -> int:
    """`500ms`, `2s`, `15m`, `6h`, `1d` in µs. Raises ValueError for anything else; zero is `0s`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("write a whole number and a unit, such as 500ms, 2s, 15m, 6h or 1d")
    return int(match[1]) * MICROSECONDS[match[2]]


def format_duration(duration_us: int) -> str:
    """µs in the largest unit that says it in whole numbers: `2m`. Below a millisecond, `250us`."""
    if duration_us == 0:
        return "0s"
    for unit, length_us in reversed(MICROSECONDS.items()):
        count, rest = divmod(duration_us, length_us)
        if not rest:
            return f"{count}{unit}"
    return f"{duration_us}us"


def duration_between(least: str, greatest: str) -> Callable[[str], int]:
    """A parser of durations (to µs) within bounds, both inclusive."""
    least_us, greatest_us = parse_duration(least), parse_duration(greatest)

    def parse(text: str) -> int:
        duration_us = parse_duration(text)
        if not least_us <= duration_us <= greatest_us:
            raise ValueError(f"write a duration from {least} to {greatest}")
        return duration_us

    return parse


def or_off(parse: Callable[[str], int]) -> Callable[[str], int | None]:
    """A parser that takes what `parse` takes, or `off`, which is None."""

    def parse_or_off(text: str) -> int | None:
        if text == "off":
            return None
        try:
            return parse(text)
        except ValueError as error:
            raise ValueError(f"{error}, or off") from None

    return parse_or_off


def integer_between(least: int, greatest: int) -> Callable[[str], int]:
    """A parser of whole numbers within bounds, both inclusive."""

    def parse(text: str) -> int:
        if _INTEGER.fullmatch(text) is None or not least <= int(text) <= greatest:
            raise ValueError(f"write a whole number from {least} to {greatest}")
        return int(text)

    return parse


def parse_port(text: str) -> int:
    """A TCP port, 0 for any free one."""
    if text.startswith("tcp://"):
        raise ValueError(
            "this looks like the variable that Kubernetes sets for a Service of that name: "
            "write the port in the pod's env, or set enableServiceLinks: false"
        )
    return integer_between(0, 65_535)(text)


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser that takes one of `choices`, written in either case, and gives it as written here."""
    by_lower_case = {choice.lower(): choice for choice in choices}

    def parse(text: str) -> str:
        try:
            return by_lower_case[text.lower()]
        except KeyError:
            raise ValueError(f"write {', '.join(choices[:-1])} or {choices[-1]}") from None

    return parse


def parse_switch(text: str) -> bool:
    """`on` or `off`."""
    return one_of("on", "off")(text) == "on"


def parse_bootstrap(text: str) -> str:
    """`host:port[,host:port…]`."""
    addresses = [address.strip() for address in text.split(",") if address.strip()]
    for address in addresses:
        match = _ADDRESS.fullmatch(address)
        if match is None or not 1 <= int(match[1]) <= 65_535:
            raise ValueError("write the brokers as host:port,host:port, such as 127.0.0.1:9092")
    if not addresses:
        raise ValueError("write the brokers as host:port,host:port, such as 127.0.0.1:9092")
    return ",".join(addresses)


def parse_timeframe_list(text: str) -> tuple[Timeframe, ...]:
    """`1m,5m,1h`, finest first."""
    try:
        return parse_timeframes(text)
    except ContractError as error:
        raise ValueError(str(error)) from None


def parse_existing_file(text: str) -> Path:
    """The path of a file that is there."""
    path = Path(text)
    if not path.is_file():
        raise ValueError("write the path of a file that exists and that this user may read")
    return path


def parse_url(text: str) -> str:
    """A storage URL. Which schemes there are is known to the sinks."""
    if _URL.fullmatch(text) is None:
        raise ValueError("write a URL, such as sqlite:////var/lib/ashi/candles.db (four slashes: an absolute path)")
    return text


def group_name(text: str) -> str:
    """The name of a consumer group, or of a member of one."""
    if len(text) > MAX_GROUP_NAME:
        raise ValueError(f"write a name of at most {MAX_GROUP_NAME} characters, it has {len(text)}")
    if _GROUP.fullmatch(text) is None:
        raise ValueError("write a name of letters, digits, dots, hyphens and underscores")
    return text


def topic_prefix(text: str) -> str:
    """What the names of topics and groups begin with; may be empty."""
    if _PREFIX.fullmatch(text) is None or len(text) > MAX_TOPIC_PREFIX:
        raise ValueError(
            "Kafka allows letters, digits, dots, hyphens and underscores in the name of a topic, and 249 in all: write "
            f"at most {MAX_TOPIC_PREFIX} of these, such as staging."
        )
    return text


def one_line(text: str) -> str:
    """A text that can be printed, of one line."""
    if not text.isprintable() or len(text) > 1_000:
        raise ValueError("write one line of text that can be printed, at most 1000 characters")
    return text


def endpoint(*schemes: str) -> Callable[[str], str]:
    """A parser of the address of a server in one of `schemes`; a slash at its end is left out."""

    def parse(text: str) -> str:
        parts = urlsplit(text)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"write an address such as {schemes[-1]}://127.0.0.1:8080")
        return text.rstrip("/")

    return parse


def redact_url(text: str) -> str:
    """A URL, or a text with some, as it may be shown: a password between `user:` and `@` becomes `***`."""
    return _URL_PASSWORD.sub(r"\1:***@", text)


def bare_url(text: str) -> str:
    """The address of a server as it may be shown: scheme, host, port and path, no user, password or query."""
    parts = urlsplit(text)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
