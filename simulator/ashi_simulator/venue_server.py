"""What a venue's protocol is to the simulator: messages in and out over the websocket, answers over REST."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aiohttp import web

    from ashi_simulator.connection import Connection
    from ashi_simulator.executions import Execution, ExecutionBatch


class RestRequest(NamedTuple):
    """A GET request, and the market's executions as far as REST knows them (`executions` of a market)."""

    parameters: Mapping[str, str]
    headers: Mapping[str, str]
    executions: Callable[[str], Sequence[Execution]]
    now: int


class RestAnswer(NamedTuple):
    """What is answered. `body` is JSON."""

    body: bytes
    status: int = 200


class Route(NamedTuple):
    """A path of the REST interface. `weight`: as the venue counts it, of a request with these parameters."""

    path: str
    weight: int | Callable[[Mapping[str, str]], int]
    answer: Callable[[RestRequest], RestAnswer]

    def weight_of(self, parameters: Mapping[str, str]) -> int:
        """What a request with these parameters takes of the limit."""
        return self.weight if isinstance(self.weight, int) else self.weight(parameters)


class VenueServer(Protocol):
    """One venue's protocol."""

    @property
    def websocket_path(self) -> str:
        """Where clients are told to connect."""

    @property
    def websocket_paths(self) -> Sequence[str]:
        """Where they may connect, as aiohttp writes paths."""

    @property
    def routes(self) -> Sequence[Route]:
        """The REST interface."""

    @property
    def error_frame(self) -> str:
        """An error that the venue sends of its own accord."""

    def notice(self) -> bytes | None:
        """What announces that the connection will be closed; None where the venue does not."""

    def frames(self, batch: ExecutionBatch) -> Sequence[bytes]:
        """The messages that push these executions."""

    def garbage(self, market: str) -> Sequence[bytes]:
        """Messages that look as if they were of the venue, and are not trades."""

    def opened(self, connection: Connection, request: web.Request) -> None:
        """A client has connected, maybe naming streams in the address."""

    def received(self, connection: Connection, text: str) -> None:
        """A client has sent a message."""

    def too_many_requests(self, banned_until_ms: int | None) -> bytes:
        """The body of the answers 429 and 418. A venue that bans an address says until when, in ms."""

    def maintenance(self) -> RestAnswer:
        """What it answers to everything while it is being worked on."""


def dump(value: Any) -> bytes:
    """Compact JSON, in UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def load(text: str) -> dict[str, Any] | None:
    """A client's message; None when it is no JSON object."""
    try:
        message = json.loads(text)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def number_of(parameters: Mapping[str, str], name: str, default: int | None) -> int | None:
    """A whole number among the parameters of a request. Raises ValueError naming it when it is none."""
    text = parameters.get(name)
    if text is None:
        return default
    if not text.isdigit():
        raise ValueError(name)
    return int(text)


BROKEN: tuple[bytes, ...] = (b"not json at all", b'{"cut":', b"[]", b"null", b'{"unknown":true}', b"")
"""What no venue ever means."""
