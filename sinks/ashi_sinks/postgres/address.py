"""The URL of a PostgreSQL database: what the driver gets of it, and the settings that each transaction begins with.

A pooler such as PgBouncer refuses to pass settings on at the start of a connection, and in its transaction mode the
next transaction may run on another one. So nothing is told to the server at the start but the application's name, and
what else the URL asks for is set by every transaction for itself.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_plus

from ashi.contracts.errors import UsageError

_SHAPE: Final = "write postgresql://user:password@host:5432/database"
_URL: Final = re.compile(
    r"postgres(?:ql)?://(?:[^:/?#@]*(?::[^/?#@]*)?@)?(?P<hosts>[^/?#@]*)/(?P<database>[^/?#@]+)(?:\?(?P<options>[^#]*))?"
)
_BEFORE_PORT: Final = re.compile(r"(\[[^\]]*\]|[^:]*):?")

# https://magicstack.github.io/asyncpg/current/api/#asyncpg.connection.connect; it passes all others to the server.
_OF_DRIVER: Final = re.compile(
    "host|port|user|password|dbname|database|passfile|service|servicefile|target_session_attrs|krbsrvname|gsslib|"
    "sslmode|sslnegotiation|sslcert|sslkey|sslrootcert|sslcrl|sslpassword|ssl_m(in|ax)_protocol_version"
)
_NAME: Final = "application_name"
_SETTING: Final = re.compile(r"(?:-c\s*|--)(?P<name>[\w.-]+)=(?P<value>(?:\\.|[^\s\\])*)(?:\s+|$)")


class Address:
    """A database's URL, and how it may be shown: without user and password.

    Attributes:
        url: what the driver gets: without the settings of the session.
        application_name: what the server's list of connections shows.
        begin: the statements that every transaction begins with.
        begin_read_only: the same for one that changes nothing.

    """

    def __init__(self, url: str) -> None:
        """Raises UsageError, which never shows the URL, when it is not one of a database."""
        match = _URL.fullmatch(url)
        if match is None:
            raise UsageError(
                f"the storage is not the URL of a PostgreSQL database: {_SHAPE}, "
                "and any of : / ? # @ % in a password as %3A %2F %3F %23 %40 %25"
            )
        options = match["options"] or ""
        if re.search(r"(^|&)password=", options):
            raise UsageError(f"the storage has its password where it would be shown: {_SHAPE}")
        ports = [_BEFORE_PORT.sub("", host, count=1) for host in match["hosts"].split(",")]
        ports += ",".join(re.findall(r"(?:^|&)port=([^&]*)", options)).split(",")
        if not all(port.isascii() and port.isdigit() and 0 < int(port) < 65_536 for port in ports if port):
            # Not repeated: where the host is missing, it may be the password.
            raise UsageError(
                f"the storage has a port that is not a number from 1 to 65535: {_SHAPE}, and an IPv6 address in "
                "brackets"
            )
        for_driver, settings = _parted(options)
        self.url = url.partition("?")[0] + ("?" + "&".join(for_driver) if for_driver else "")
        self.application_name = settings.pop(_NAME, "ashi")
        self.begin = "; ".join(["BEGIN", *_statements(settings)])
        self.begin_read_only = "; ".join(["BEGIN READ ONLY", *_statements(settings)])
        self._shown = f"database {match['database']} at {match['hosts'] or 'the local socket'}"

    def __str__(self) -> str:
        return self._shown


def _parted(options: str) -> tuple[list[str], dict[str, str]]:
    """What the driver knows, as it is written, and the settings of the session."""
    for_driver: list[str] = []
    settings: dict[str, str] = {}
    for option in filter(None, options.split("&")):
        name, _, value = option.partition("=")
        if _OF_DRIVER.fullmatch(name):
            for_driver.append(option)
        elif name == "options":
            settings |= _of_command_line(unquote_plus(value))
        else:
            settings[unquote_plus(name)] = unquote_plus(value)
    return for_driver, settings


def _of_command_line(text: str) -> dict[str, str]:
    """The settings in `-c name=value --name=value`, where a backslash takes the next character as it is.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-OPTIONS
    """
    settings: dict[str, str] = {}
    text, place = text.strip(), 0
    while place < len(text):
        match = _SETTING.match(text, place)
        if match is None:
            raise UsageError(
                "the storage has options= that are not settings: write options=-c%20search_path%3Dname, "
                "or ?search_path=name itself"
            )
        settings[match["name"].replace("-", "_")] = re.sub(r"\\(.)", r"\1", match["value"])
        place = match.end()
    return settings


def _statements(settings: dict[str, str]) -> list[str]:
    return [f"SELECT set_config({_literal(name)}, {_literal(value)}, true)" for name, value in settings.items()]


def _literal(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{quoted}'"
