"""What topic `candles` has of a symbol: where its live series begins, and what was loaded before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.candle import Candle, make_version
from ashi.contracts.errors import ContractError
from ashi.contracts.records import candle_in, is_loaded
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.topics import CANDLES
from ashi.runtime.kafka.cluster.offsets import begin_offsets, end_offsets
from ashi.runtime.kafka.connections.clients import partition_of
from ashi.runtime.kafka.consuming.records import read_between

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from ashi.runtime.settings import Settings

CONTENT: Final = tuple(name for name in Candle.__struct_fields__ if name != "version")


class KnownCandle(NamedTuple):
    """Of the candles of a window the one with the greatest version.

    Attributes:
        content: what tells its content from others.
        is_loaded: whether it was made of files alone.

    """

    version: int
    trade_count: int
    content: int
    is_loaded: bool


class KnownCandles:
    """The candles of one symbol.

    Attributes:
        oldest_live: of each timeframe the oldest candle that no file has part in, in its greatest version.
        symbols: all that the topic has candles of, by their keys.
        is_whole: whether the symbol's partition still has all that was ever in it.

    """

    def __init__(
        self, symbol: str, timeframes: Sequence[Timeframe], joined: Container[Candle], epoch: int, durable_end: int
    ) -> None:
        """`joined`: the candles that were joined with what files have.

        `epoch`: of the state. `durable_end`: up to which offset of the symbol's partition of `trades` it is durable.
        """
        self.oldest_live: dict[Timeframe, Candle] = {}
        self.symbols: set[str] = set()
        self.is_whole = True
        self._symbol = symbol
        self._joined = joined
        self._known: dict[str, dict[int, KnownCandle]] = {str(timeframe): {} for timeframe in timeframes}
        self._durable = range(make_version(epoch, 0), make_version(epoch, durable_end))
        self._stream_time = 0

    async def read(self, settings: Settings) -> None:
        """Read the topic as it is now. Raises BrokerError when Kafka is out of reach."""
        key = self._symbol.encode()
        begin, end = await begin_offsets(settings, CANDLES), await end_offsets(settings, CANDLES)
        number = partition_of(key, len(end))
        self.is_whole = not begin[number]
        # What was written while there were fewer partitions may stand in another one.
        keys: set[bytes] = set()
        async for _, records in read_between(settings, CANDLES, begin, end):
            for record in records:
                if record.key != key:
                    keys.add(record.key or b"")
                    continue
                try:
                    candle = candle_in(record)
                except ContractError:
                    continue  # no reader takes it
                self.take(candle, is_loaded=is_loaded(record))
        self.symbols = {key.decode(errors="replace") for key in keys}

    def begins_with(self, edge: Sequence[Candle]) -> bool:
        """Take the oldest live candles from what was written down of them, as the topic has lost its beginning.

        False where that cannot be: of a timeframe there is none, or the topic has an older one.
        """
        written = {Timeframe.parse(candle.timeframe): candle for candle in edge}
        oldest: dict[Timeframe, Candle] = {}
        for timeframe in map(Timeframe.parse, self._known):
            candle, there = written.get(timeframe), self.oldest_live.get(timeframe)
            if candle is None or (there and there.open_time < candle.open_time):
                return False
            is_newer = there is not None and there.open_time == candle.open_time and there.version > candle.version
            # Of that window the topic may have a candle that was rebuilt since.
            oldest[timeframe] = there if there and is_newer else candle
        self.oldest_live = oldest
        return True

    def final_edge(self, final_until: int) -> list[Candle]:
        """The oldest live candles of windows that ended by a time, µs."""
        return [candle for _, candle in sorted(self.oldest_live.items()) if candle.close_time <= final_until]

    def take(self, candle: Candle, *, is_loaded: bool) -> None:
        """Note a candle of the topic."""
        known = self._known.get(candle.timeframe)
        if known is None:
            return  # of settings that there were before
        if not is_loaded and candle not in self._joined:
            timeframe = Timeframe.parse(candle.timeframe)
            oldest = self.oldest_live.get(timeframe)
            if oldest is None or (candle.open_time, -candle.version) < (oldest.open_time, -oldest.version):
                self.oldest_live[timeframe] = candle
            if candle.trade_count and candle.version in self._durable:
                self._stream_time = max(self._stream_time, candle.open_time)
        before = known.get(candle.open_time)
        if before is None or candle.version > before.version:
            known[candle.open_time] = KnownCandle(candle.version, candle.trade_count, content_of(candle), is_loaded)

    def get(self, candle: Candle) -> KnownCandle | None:
        """What is known of the window of a candle."""
        return self._known[candle.timeframe].get(candle.open_time)

    def final_until(self, horizon_us: int, finest: Timeframe, copies_us: int) -> int:
        """Windows that ended by this time (µs) can change no more, and all that the workers have to say is said.

        A candle of trades tells that the stream time had come to its window, at the offset in its version.
        """
        return self._stream_time - horizon_us - finest.length_us - copies_us


def content_of(candle: Candle) -> int:
    """All that a candle says but its version, as a number that is the same for the same content in this process."""
    return hash(tuple(getattr(candle, name) for name in CONTENT))
