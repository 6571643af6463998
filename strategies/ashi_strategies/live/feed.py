"""The candles and gaps of a strategy's series, from the topics: what was, from a time on, and then what comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeAlias

from ashi.client import Completeness, read_candles, read_feed_gaps, read_feed_status
from ashi.contracts.candle import Candle
from ashi.contracts.feed import FeedGap
from ashi.contracts.topics import CANDLES, FEED_GAPS
from ashi.runtime.kafka.cluster.offsets import end_offsets
from ashi.runtime.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.client import Position, Since, UnreadableRecord
    from ashi.runtime.settings import Settings

Item: TypeAlias = Candle | FeedGap

LOOK_S: Final = 0.1
MOST_WAITING: Final = 10_000
"""So many are held at most until they are asked for; then the reading waits."""

_log = get_logger(__name__)


class TopicFeed:
    """Reads on and on; `more` gives what has come, in the order of the topic.

    Each candle that comes is newer than what came before of its window (`ashi.client.read_candles`).
    """

    def __init__(self, settings: Settings, symbols: Sequence[str], timeframes: Sequence[str], since: Since) -> None:
        """`since`: where the reading of candles begins. Of gaps and of the feeds' state all is read that Kafka has."""
        self._settings = settings
        # What is older than all that was live is no news; a start finds it in the store.
        self._candles = read_candles(settings, symbols=symbols, timeframes=timeframes, since=since, loaded=False)
        self._gaps = read_feed_gaps(settings, symbols=symbols)
        # One that is none leaves completeness as it was; a record without a value takes a market out of the topic.
        self._statuses = read_feed_status(settings, symbols=symbols, on_unreadable=_warn_of)
        self._completeness = Completeness()
        self._items: list[Item] = []
        self._has_some = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._parts: list[asyncio.Task[None]] = []
        self._ends: dict[int, int] = {}

    async def open(self) -> None:
        """Connect, and read. Raises BrokerError and StateError; it is to be closed then, too."""
        for reader in (self._gaps, self._statuses, self._candles):
            await reader.__aenter__()
        self._ends = await end_offsets(self._settings, CANDLES)
        self._parts = [
            asyncio.create_task(self._read_candles()),
            asyncio.create_task(self._read_gaps()),
            asyncio.create_task(self._read_statuses()),
        ]

    async def close(self) -> None:
        """Disconnect. May be called at any time, and again."""
        for part in self._parts:
            part.cancel()
        await asyncio.gather(*self._parts, return_exceptions=True)
        for reader in (self._candles, self._gaps, self._statuses):
            await reader.aclose()

    def is_complete(self, candle: Candle) -> bool:
        """Whether no trade is missing from a candle, as far as the feeds have said so far."""
        return self._completeness.is_complete(candle)

    @property
    def is_caught_up(self) -> bool:
        """Whether all that stood in the topic when the reading began has been given out."""
        offsets = self._candles.position.offsets
        return not self._items and all(offsets.get(number, 0) >= end for number, end in self._ends.items())

    @property
    def ends(self) -> dict[int, int]:
        """The end of each partition of topic `candles`, as far as is known without asking for it."""
        return self._candles.last_ends

    async def more(self, wait_s: float) -> tuple[list[Item], Position]:
        """What has come since, perhaps nothing, and how far topic `candles` goes with it; waits for at most `wait_s`.

        Raises what the readers raise (`ashi.client.Reader`).
        """
        if not self._items:
            waiting = asyncio.create_task(self._has_some.wait())
            await asyncio.wait({waiting, *self._parts}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        for part in self._parts:
            if part.done():
                part.result()
        items, self._items = self._items, []
        self._has_some.clear()
        self._has_room.set()
        return items, self._candles.position

    async def _read_candles(self) -> None:
        async for candle in self._candles:
            await self._put(candle)

    async def _read_gaps(self) -> None:
        async for gap in self._gaps:
            self._completeness.update(gap)
            await self._put(gap)

    async def _read_statuses(self) -> None:
        # A status rests on the gaps that were told before it. Those that there are come first.
        ends = await end_offsets(self._settings, FEED_GAPS)
        while any(self._gaps.position.offsets.get(number, 0) < end for number, end in ends.items()):  # noqa: ASYNC110  (a reader tells nobody)
            await asyncio.sleep(LOOK_S)
        async for status in self._statuses:
            self._completeness.update(status)

    async def _put(self, item: Item) -> None:
        self._items.append(item)
        self._has_some.set()
        if len(self._items) >= MOST_WAITING:
            self._has_room.clear()
            await self._has_room.wait()


def _warn_of(record: UnreadableRecord) -> None:
    _log.warning("message is not readable, passed over", source=record.place, reason=str(record.error))
