"""Logging in by a token (SASL OAUTHBEARER): from a file that somebody renews, or of a command that prints one."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import threading
import time
from functools import cache
from typing import TYPE_CHECKING, Final

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ashi.runtime.settings import Settings

COMMAND_TIMEOUT_S: Final = 15.0
REUSED_S: Final = 5.0
"""So long a token of a command is used again: a worker that starts makes a dozen connections at once."""


class TokenError(KafkaError):  # type: ignore[misc]  # the library is not typed
    """There is no token to log in with; the text says why, and never a token: only what a command said on stderr."""


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # the library is not typed
    """Gives each connection the newest token. May be used in several threads, as Faust's clients are."""

    def __init__(self, get: Callable[[], str], reused_s: float = 0.0) -> None:
        self._get = get
        self._reused_s = reused_s
        self._lock = threading.Lock()
        self._token = ""
        self._until_s = 0.0

    async def token(self) -> str:
        """The token for a connection that is being made. Raises TokenError."""
        return await asyncio.to_thread(self._newest)

    def _newest(self) -> str:
        with self._lock:
            if time.monotonic() >= self._until_s:
                self._token = self._get()
                self._until_s = time.monotonic() + self._reused_s
            return self._token


def make_token_provider(settings: Settings) -> TokenProvider:
    """What the settings say of tokens."""
    if settings.kafka_token_file is not None:
        path = settings.kafka_token_file
        return TokenProvider(lambda: _read(path))
    assert settings.kafka_token_command is not None  # noqa: S101 - the settings are checked
    return _of_command(settings.kafka_token_command)


@cache
def _of_command(command: str) -> TokenProvider:
    """One for all clients of the process, so that they share its tokens. Raises ValueError for an unbalanced quote."""
    argv = shlex.split(command)
    return TokenProvider(lambda: _run(argv), REUSED_S)


def _read(path: Path) -> str:
    try:
        token = path.read_text().strip()
    except (OSError, ValueError) as error:
        raise TokenError(f"ASHI_KAFKA_TOKEN_FILE {str(path)!r} cannot be read: {error}") from None
    if not token:
        raise TokenError(f"ASHI_KAFKA_TOKEN_FILE {str(path)!r} is empty")
    return token


def _run(argv: list[str]) -> str:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:  # its text has all arguments, and one may be a secret
        raise TokenError(
            f"ASHI_KAFKA_TOKEN_COMMAND {argv[:1]} printed no token within {COMMAND_TIMEOUT_S:g} s"
        ) from None
    except (OSError, ValueError) as error:
        raise TokenError(f"ASHI_KAFKA_TOKEN_COMMAND {argv[:1]} cannot be run: {error}") from None
    if done.returncode or not done.stdout.strip():
        said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise TokenError(
            f"ASHI_KAFKA_TOKEN_COMMAND {argv[:1]} printed no token: it ended with status {done.returncode} and said "
            f"{said[0]!r}"
        )
    return done.stdout.strip()
