"""A worker that fails says what it failed of, whatever its parts do while it stops."""

from __future__ import annotations

import asyncio

import pytest

from ashi_aggregate import worker


class Stops:
    def __init__(self, error: Exception | None) -> None:
        self._error = error

    async def stop(self) -> None:
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()  # as for a thread whose loop has ended


def test_what_never_stops_is_waited_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "STOP_FAILED_S", 0.05)
    asyncio.run(asyncio.wait_for(worker._stop_failed(Stops(None)), 30))


def test_an_error_of_stopping_does_not_take_the_place_of_the_failure() -> None:
    asyncio.run(worker._stop_failed(Stops(RuntimeError("Event loop is closed"))))
