"""Does what `faults` lists, to the open connections and to REST."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from ashi_simulator.faults import ONE, check_fault
from ashi_simulator.rules import contiguous
from ashi_simulator.subscriptions import Welcome

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from random import Random

    from ashi_simulator.connection import Connection
    from ashi_simulator.exchange import Exchange
    from ashi_simulator.rest_faults import RestFaults
    from ashi_simulator.subscriptions import Subscriptions
    from ashi_simulator.venue_server import VenueServer
    from ashi_simulator.websocket_endpoint import WebsocketEndpoint

HALF_FRAME_S: Final = 0.05
"""So long the half may travel before the connection is broken, which would destroy what is on its way."""


class FaultInjector:
    """Performs faults. One at a time or several at once, as they come.

    Attributes:
        done: the faults so far, with their arguments, in the order they were asked for.

    """

    def __init__(
        self,
        venue: str,
        *,
        subscriptions: Subscriptions,
        exchange: Exchange,
        rest: RestFaults,
        websocket: WebsocketEndpoint,
        venue_server: VenueServer,
        random: Random,
        refuse: Callable[[float], Coroutine[Any, Any, None]],
    ) -> None:
        self._venue = venue
        self._listings = subscriptions.listings
        self._subscriptions = subscriptions
        self._exchange = exchange
        self._rest = rest
        self._websocket = websocket
        self._venue_server = venue_server
        self._random = random
        self._refuse_for = refuse
        self._tasks: set[asyncio.Task[None]] = set()
        self.done: list[tuple[str, dict[str, Any]]] = []

    def perform(self, name: str, arguments: dict[str, Any]) -> None:
        """Begin a fault; what takes time goes on by itself. Raises UsageError as `check_fault` does."""
        chosen = check_fault(name, arguments, self._venue, tuple(self._exchange.histories))
        self.done.append((name, chosen))
        getattr(self, f"_{name}")(**chosen)

    async def stop(self) -> None:
        """End what goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _go_on(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _chosen(self, connections: str) -> list[Connection]:
        opened = list(self._subscriptions.connections)
        return [self._random.choice(opened)] if connections == ONE and opened else opened

    def _one_of_those_read(self, market: str) -> str:
        return market or self._random.choice(self._subscriptions.subscribed() or list(self._listings))

    def _until(self, seconds: float) -> float:
        return asyncio.get_running_loop().time() + seconds

    def _drop(self, connections: str) -> None:
        for connection in self._chosen(connections):
            connection.reset()

    def _close(self, connections: str, code: int, reason: str) -> None:
        for connection in self._chosen(connections):
            self._go_on(connection.close(code, reason))

    def _silence(self, connections: str, seconds: float) -> None:
        chosen = self._chosen(connections)
        for connection in chosen:
            connection.muted = True
        self._go_on(self._reset_after(chosen, seconds))

    async def _reset_after(self, connections: Sequence[Connection], seconds: float) -> None:
        """A connection that has missed messages must never speak again, or it would seem to have missed none."""
        await asyncio.sleep(seconds)
        for connection in connections:
            connection.reset()

    def _half_frame(self, connections: str, fragmented: bool) -> None:
        chosen = self._chosen(connections)
        for connection in chosen:
            connection.half_frame(
                self._subscriptions.last_of(connection) or b'{"half":"of a message"}', fragmented=fragmented
            )
        self._go_on(self._reset_after(chosen, HALF_FRAME_S))

    def _garbage(self) -> None:
        for connection in list(self._subscriptions.connections):
            for payload in self._venue_server.garbage(next(iter(connection.subscriptions), next(iter(self._listings)))):
                connection.send(payload)

    def _error_frame(self, text: str) -> None:
        for connection in list(self._subscriptions.connections):
            connection.send((text or self._venue_server.error_frame).encode())

    def _duplicate(self, frames: int) -> None:
        self._subscriptions.repeat(frames)

    def _reorder(self, market: str, frames: int) -> None:
        self._subscriptions.reorder(self._one_of_those_read(market), frames)

    def _skip(self, market: str, frames: int) -> None:
        possible = [
            market for market in self._subscriptions.subscribed() or self._listings if contiguous(self._venue, market)
        ]
        if market or possible:
            self._subscriptions.skip(market or self._random.choice(possible), frames)

    def _lifetime(self, connections: str, notice_s: float) -> None:
        for connection in self._chosen(connections):
            self._go_on(self._websocket.end_of_life(connection, notice_s))

    def _rest_429(self, requests: int, retry_after_s: int) -> None:
        self._rest.refusals += requests
        self._rest.refusal_retry_s = float(retry_after_s)

    def _rest_timeout(self, requests: int, seconds: float) -> None:
        self._rest.hangs += requests
        self._rest.hang_s = seconds

    def _rest_500(self, requests: int, status: int) -> None:
        self._rest.failures += requests
        self._rest.failure_status = status

    def _rest_lag(self, milliseconds: int, seconds: float) -> None:
        self._rest.lag_behind(milliseconds, self._until(seconds))

    def _rest_refuse(self, status: int, seconds: float, retry_after_s: int, banned: bool) -> None:
        self._rest.refuse(status, self._until(seconds), retry_after_s, banned=banned)

    def _rest_garbled(self, shape: str, seconds: float) -> None:
        self._rest.garble(shape, self._until(seconds))

    def _refuse(self, seconds: float, drop: bool) -> None:
        self._go_on(self._refuse_for(seconds))
        if drop:
            self._drop("all")

    def _slow(self, seconds: float, delay_s: float) -> None:
        chosen = list(self._subscriptions.connections)
        for connection in chosen:
            connection.delay_s = delay_s
        self._go_on(self._hasten_after(chosen, seconds))

    async def _hasten_after(self, connections: Sequence[Connection], seconds: float) -> None:
        await asyncio.sleep(seconds)
        for connection in connections:
            connection.delay_s = 0.0

    def _handshake_refused(self, status: int, seconds: float, drop: bool) -> None:
        self._websocket.refuse(status, seconds)
        if drop:
            self._drop("all")

    def _lose(self, market: str, frames: int) -> None:
        self._subscriptions.skip(self._one_of_those_read(market), frames)

    def _mute(self, market: str, seconds: float, resubscriptions: int) -> None:
        self._subscriptions.mute(self._one_of_those_read(market), seconds, resubscriptions)

    def _subscribe_late(self, seconds: float, delay_s: float) -> None:
        self._subscriptions.late_s = delay_s
        self._go_on(self._be_prompt_after(seconds))

    async def _be_prompt_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._subscriptions.late_s = 0.0

    def _subscribe_unanswered(self, market: str, seconds: float) -> None:
        self._subscriptions.be_unwelcome(self._one_of_those_read(market), Welcome.IGNORED, seconds)

    def _subscribe_refused(self, market: str, seconds: float) -> None:
        self._subscriptions.be_unwelcome(self._one_of_those_read(market), Welcome.REFUSED, seconds)

    def _halt(self, market: str, seconds: float) -> None:
        self._go_on(self._halt_for(self._one_of_those_read(market), seconds))

    async def _halt_for(self, market: str, seconds: float) -> None:
        self._set_trading(market, trading=False)
        await asyncio.sleep(seconds)
        self._set_trading(market, trading=True)

    def _set_trading(self, market: str, *, trading: bool) -> None:
        self._listings.set_trading(market, trading)
        self._exchange.relist()

    def _list_market(self, market: str) -> None:
        self._listings.add(market)
        self._exchange.relist()

    def _delist_market(self, market: str) -> None:
        if len(self._listings) > 1:
            self._listings.remove(market or self._random.choice(list(self._listings)))
            self._exchange.relist()

    def _clock(self, offset_s: float, seconds: float) -> None:
        self._exchange.set_clock(offset_s)
        self._go_on(self._correct_clock_after(seconds))

    async def _correct_clock_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._exchange.set_clock(0.0)
