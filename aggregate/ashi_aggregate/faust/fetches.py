"""The answers to a client's fetches, which the client hands to nobody as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

_FETCH: Final = 1


def see_fetches(consumer: Any, look: Callable[[int, Any, Any], None]) -> None:
    """Let `look` see each from now on, before the client takes it in: the broker's number, the request, the answer.

    In the client's thread.
    """
    client = consumer._client
    send = client.send

    async def send_and_look(node_id: int, request: Any, **options: Any) -> Any:
        response = await send(node_id, request, **options)
        if getattr(response, "API_KEY", None) == _FETCH:
            look(node_id, request, response)
        return response

    client.send = send_and_look
