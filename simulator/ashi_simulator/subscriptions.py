"""Who has subscribed to what, and what of the market's messages reaches them."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ashi_simulator.connection import Connection, Style
    from ashi_simulator.markets.listings import Listings

REMEMBERED: Final = 100
"""Messages that can be sent a second time."""
REORDER_PATIENCE_S: Final = 0.5
"""Messages held to be reordered go out after so long, even if fewer came than were to be held."""


@dataclass(slots=True)
class _Held:
    """Messages of one market that wait to be sent in reverse."""

    amount: int
    until: float
    payloads: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class _Mute:
    """Connections over which nothing of a market comes, and how many subscriptions it takes to end that for one."""

    connections: set[Connection]
    until: float
    resubscriptions: int


class Welcome(Enum):
    """What becomes of a message that subscribes."""

    ACCEPTED = "accepted"
    IGNORED = "ignored"
    REFUSED = "refused"


class Subscriptions:
    """All open connections.

    Attributes:
        late_s: what clients send is taken note of so late.

    """

    def __init__(self, listings: Listings) -> None:
        self.listings = listings
        self.late_s = 0.0
        self.connections: list[Connection] = []
        self.recent: deque[tuple[str, bytes]] = deque(maxlen=REMEMBERED)
        self._subscribers: dict[str, list[Connection]] = {}
        self._skips: dict[str, int] = {}
        self._mutes: dict[str, _Mute] = {}
        self._unwelcome: dict[str, tuple[Welcome, float]] = {}
        self._held: dict[str, _Held] = {}
        self._changed = asyncio.Event()

    def add(self, connection: Connection) -> None:
        """A client has connected."""
        self.connections.append(connection)

    def remove(self, connection: Connection) -> None:
        """A client has gone."""
        self.connections.remove(connection)
        for market in list(connection.subscriptions):
            self.unsubscribe(connection, market)

    def subscribe(self, connection: Connection, market: str, style: Style) -> None:
        """From now on the connection gets the messages of the market. A second subscription changes the style only."""
        if market not in connection.subscriptions:
            self._subscribers.setdefault(market, []).append(connection)
            self._end_mute(connection, market)
        connection.subscriptions[market] = style
        self._notify()

    def unsubscribe(self, connection: Connection, market: str) -> None:
        """It gets no more of them."""
        del connection.subscriptions[market]
        self._subscribers[market].remove(connection)
        self._notify()

    def welcome(self, markets: Iterable[str]) -> Welcome:
        """What becomes of a message that subscribes to these."""
        now = asyncio.get_running_loop().time()
        for market in markets:
            what, until = self._unwelcome.get(market, (Welcome.ACCEPTED, 0.0))
            if now < until:
                return what
        return Welcome.ACCEPTED

    def be_unwelcome(self, market: str, what: Welcome, seconds: float) -> None:
        """For so long, have messages that subscribe to the market ignored or refused."""
        self._unwelcome[market] = what, asyncio.get_running_loop().time() + seconds

    def mute(self, market: str, seconds: float, resubscriptions: int) -> None:
        """Send nothing of the market to those who have subscribed to it, for so long (0: for ever).

        It ends before for a connection that has subscribed anew so often, or for the so manieth new one.
        """
        until = asyncio.get_running_loop().time() + seconds if seconds else math.inf
        self._mutes[market] = _Mute(set(self._subscribers.get(market, ())), until, resubscriptions)

    def _end_mute(self, connection: Connection, market: str) -> None:
        """A new subscription, on whatever connection, ends a mute for itself, unless it takes more than one."""
        mute = self._mutes.get(market)
        if mute is None:
            return
        mute.resubscriptions -= 1
        (mute.connections.add if mute.resubscriptions > 0 else mute.connections.discard)(connection)

    def _is_muted(self, connection: Connection, market: str) -> bool:
        mute = self._mutes[market]
        if asyncio.get_running_loop().time() >= mute.until:
            del self._mutes[market]
            return False
        return connection in mute.connections

    def subscribed(self) -> list[str]:
        """The markets that somebody has subscribed to."""
        return [market for market, connections in self._subscribers.items() if connections]

    async def wait_subscribed(self, markets: Iterable[str]) -> None:
        """Wait until somebody has subscribed to each of `markets`."""
        wanted = set(markets)
        while not wanted <= set(self.subscribed()):
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def publish(self, market: str, payloads: Sequence[bytes]) -> None:
        """Hand messages of a market to whoever subscribed to it; `flush` sends them."""
        if self._skips:
            payloads = self._without_skipped(market, payloads)
        if (held := self._held.get(market)) is not None:
            held.payloads.extend(payloads)
            if len(held.payloads) >= held.amount:
                self._release(market)
            return
        self._deliver(market, payloads)

    def _deliver(self, market: str, payloads: Sequence[bytes]) -> None:
        self.recent.extend((market, payload) for payload in payloads)
        for connection in self._subscribers.get(market, ()):
            if market not in self._mutes or not self._is_muted(connection, market):
                connection.push(market, payloads)

    def flush(self) -> None:
        """Send what was published."""
        if self._held:
            now = asyncio.get_running_loop().time()
            for market in [market for market, held in self._held.items() if held.until <= now]:
                self._release(market)
        for connection in list(self.connections):
            connection.flush()

    def skip(self, market: str, frames: int) -> None:
        """The next messages of the market will reach nobody."""
        self._skips[market] = self._skips.get(market, 0) + frames

    def _without_skipped(self, market: str, payloads: Sequence[bytes]) -> Sequence[bytes]:
        left = self._skips.get(market, 0)
        skipped = min(left, len(payloads))
        if left == skipped:
            self._skips.pop(market, None)
        else:
            self._skips[market] = left - skipped
        return payloads[skipped:]

    def reorder(self, market: str, frames: int) -> None:
        """The next messages of the market will come in reverse."""
        until = asyncio.get_running_loop().time() + REORDER_PATIENCE_S
        self._held.setdefault(market, _Held(frames, until))

    def _release(self, market: str) -> None:
        held = self._held.pop(market)
        # What came beyond the amount came in the same sweep; it is sent in its order, after those.
        self._deliver(market, [*reversed(held.payloads[: held.amount]), *held.payloads[held.amount :]])

    def release_all(self) -> None:
        """Send everything that is held back: the market stops."""
        for market in list(self._held):
            self._release(market)
        self.flush()

    def repeat(self, frames: int) -> None:
        """Send the last messages once more."""
        for market, payload in list(self.recent)[-frames:]:
            for connection in self._subscribers.get(market, ()):
                if market not in self._mutes or not self._is_muted(connection, market):
                    connection.push(market, [payload])
        self.flush()

    def last_of(self, connection: Connection) -> bytes | None:
        """The message last sent that concerns this connection."""
        for market, payload in reversed(self.recent):
            if market in connection.subscriptions:
                return payload
        return None
