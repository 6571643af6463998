"""Logging in by a password: with the newest that its file holds, and in no log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiokafka.client import AIOKafkaClient

    from ashi.runtime.settings import Settings

_HIDDEN: Final = "Sasl"
"""What the names of the library's requests of a login begin with, and of their answers."""


def renew_login(client: AIOKafkaClient, settings: Settings) -> None:
    """Let a client, not yet started, log in with the password that its file holds when a connection is made.

    The library keeps the text that it was given for as long as it runs.
    """
    password = settings.kafka_password
    if password is None:
        return

    def with_newest(connect: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def take_and_connect(*arguments: Any, **options: Any) -> Any:
            client._sasl_plain_password = password.reveal()
            return await connect(*arguments, **options)

        return take_and_connect

    client.bootstrap = with_newest(client.bootstrap)
    client._get_conn = with_newest(client._get_conn)


class _HideLogins(logging.Filter):
    """At level debug the library writes each request as it goes out: that of a login holds the password or token."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True: the record is written, with the name of such a request in its place."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_without_contents, record.args))
        return True


def _without_contents(argument: object) -> object:
    name = type(argument).__name__
    return f"{name}(***)" if name.startswith(_HIDDEN) else argument


# On the library's own logger, whoever's handlers its records go to: those of a program that reads by `ashi.client` too.
logging.getLogger("aiokafka.conn").addFilter(_HideLogins())
