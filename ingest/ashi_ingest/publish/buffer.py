"""Between the feeds, which must never wait, and Kafka, which may be slow or away: one queue, in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ashi.contracts.trade import Trade
    from ashi_ingest.publish.publisher import Appended, Publisher
    from ashi_ingest.venues.parsing import Rejected

LINGER_S: Final = 0.005
"""What comes within so long goes to Kafka together: a request for each trade would cost more than the trade."""

LETTER_BYTES: Final = 1024
"""A dead letter counts as one trade for each so many bytes: a frame can have megabytes."""


class _Trades(NamedTuple):
    trades: list[Trade]
    streamed: bool
    late: bool


class _Letters(NamedTuple):
    rejected: Sequence[Rejected]
    source: str


class PublishBuffer:
    """Holds what is to be published until the publisher takes it. `put` and `reject` return at once."""

    def __init__(self, publisher: Publisher, on_fetched: Callable[[Sequence[Trade]], None] = lambda _: None) -> None:
        """`on_fetched` gets the trades that no connection brought, as they are put here."""
        self._on_fetched = on_fetched
        self._publisher = publisher
        self._items: list[_Trades | _Letters] = []
        self._waiting = 0
        self._filled = asyncio.Event()
        self._emptying: asyncio.Task[None] | None = None

    @property
    def held(self) -> int:
        """Trades (and dead letters, by their size) in memory that Kafka has not acknowledged."""
        return self._waiting + self._publisher.held

    @property
    def appended(self) -> Appended | None:
        """When Kafka appended the last trades; None before the first."""
        return self._publisher.appended

    def put(self, trades: Sequence[Trade], *, streamed: bool, late: bool = False) -> None:
        """Publish trades after all that was put before. `streamed`: over a connection, so their way is measured.

        `late`: see `Publisher.publish`.
        """
        if trades:
            if not streamed:
                self._on_fetched(trades)
            self._publisher.expect(len(trades))
            last = self._items[-1] if self._items else None
            if isinstance(last, _Trades) and last.streamed is streamed and last.late is late:
                last.trades.extend(trades)  # a call of the publisher's for each costs as much as its trades
                self._waiting += len(trades)
            else:
                self._add(_Trades(list(trades), streamed, late), len(trades))

    def reject(self, rejected: Sequence[Rejected], source: str) -> None:
        """Publish what could not be read to `trades.dead`."""
        if rejected:
            self._add(_Letters(rejected, source), _weight(rejected))

    async def room(self, most: int) -> None:
        """Wait until at most so many are held."""
        while self.held > most:
            self._publisher.settled.clear()
            await self._publisher.settled.wait()

    async def run(self) -> None:
        """Hand everything to the publisher as it comes, for ever. Raises BrokerError when Kafka refuses something."""
        while True:
            await self._filled.wait()
            await asyncio.sleep(LINGER_S)
            self._emptying = asyncio.create_task(self._empty())
            # Cut off in the middle it would lose trades, and those after them would hide that from the next start.
            await asyncio.shield(self._emptying)

    async def empty(self) -> None:
        """Hand over what is still here, when `run` has been cancelled. Raises BrokerError as it does."""
        if self._emptying is not None:
            await self._emptying
        await self._empty()

    async def _empty(self) -> None:
        self._filled.clear()
        items, self._items = self._items, []
        for item in items:
            if isinstance(item, _Trades):
                self._waiting -= len(item.trades)  # from here on the publisher counts them
                await self._publisher.publish(item.trades, streamed=item.streamed, late=item.late)
            else:
                await self._publisher.reject(item.rejected, item.source)
                self._waiting -= _weight(item.rejected)
                self._publisher.settled.set()
        await self._publisher.send_batches()

    def _add(self, item: _Trades | _Letters, count: int) -> None:
        self._items.append(item)
        self._waiting += count
        self._filled.set()


def _weight(rejected: Sequence[Rejected]) -> int:
    return sum(1 + len(letter.value) // LETTER_BYTES for letter in rejected)
