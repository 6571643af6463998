"""The last 24 hours of one market, in little memory: what its candles of the hours add up to. Pure."""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.decimals import EXACT, format_decimal
from ashi.contracts.timeframe import DAY_US, HOUR_US
from ashi_chart.candles.rollup import NEVER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ashi.contracts.candle import Candle
    from ashi.contracts.timeframe import Timeframe

_ZERO: Final = Decimal(0)


class Step(NamedTuple):
    """Which candles a day is made of.

    Attributes:
        timeframe: theirs.
        slot_us: what of them is kept together, µs: an hour, or the timeframe where that divides no hour.

    """

    timeframe: str
    slot_us: int

    @classmethod
    def of(cls, timeframes: Collection[Timeframe]) -> Step:
        """The longest timeframe that divides an hour, or else the shortest. Raises ValueError for none."""
        divisors = [each for each in timeframes if HOUR_US % each.length_us == 0]
        chosen = max(divisors) if divisors else min(timeframes)
        return cls(str(chosen), HOUR_US if divisors else chosen.length_us)

    def start(self, now: int) -> int:
        """When the day that ends now began: with the slot in progress it is as many as a day has, µs."""
        return now - now % self.slot_us - DAY_US + self.slot_us

    @property
    def recent(self) -> int:
        """So many parts that came are remembered by themselves: a store that lags less lacks none."""
        return min(max(HOUR_US // 4 // self.slot_us, 2), 16)


class _Part(NamedTuple):
    """What is needed of a candle, or of several that follow each other."""

    open_time: int
    close_time: int
    version: int
    open: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal

    @classmethod
    def of(cls, candle: Candle) -> _Part:
        return cls(
            candle.open_time, candle.close_time, candle.version, candle.open, candle.close, candle.volume,
            candle.quote_volume,
        )  # fmt: skip

    @classmethod
    def unpack(cls, packed: str) -> _Part:
        open_time, close_time, version, *amounts = packed.split("|")
        return cls(int(open_time), int(close_time), int(version), *map(Decimal, amounts))

    def pack(self) -> str:
        """A fifth of the memory."""
        return "|".join(map(str, self))

    def and_then(self, later: _Part) -> _Part:
        return _Part(
            self.open_time,
            later.close_time,
            max(self.version, later.version),
            self.open,
            later.close,
            EXACT.add(self.volume, later.volume),
            EXACT.add(self.quote_volume, later.quote_volume),
        )


class Summary(NamedTuple):
    """What the parts of a day add up to.

    Attributes:
        volume: base currency.
        quote_volume: quote currency.
        before: the price with which it began: the last one before it, or else the first one in it; None where nobody
            has traded.
        last: the newest price, None likewise.
        closes: of the slots that are over, oldest first; where nobody traded that before, and none before the first.

    """

    volume: Decimal
    quote_volume: Decimal
    before: Decimal | None
    last: Decimal | None
    closes: tuple[str, ...]


class Day:
    """The parts of one market, slot by slot, and the one in progress."""

    __slots__ = ("_ahead", "_closed", "_dropped_until", "_is_known", "_recent", "_since", "_slots", "_step")

    def __init__(self, step: Step | None) -> None:
        """`step`: None where it is not known yet; then nothing is to be given to it, and there will be another."""
        self._step = step or Step("1h", HOUR_US)
        self._slots: dict[int, str] = {}
        self._recent: deque[_Part] = deque(maxlen=self._step.recent)
        self._dropped_until = NEVER
        self._ahead: _Part | None = None
        self._is_known = False
        self._closed: Summary | None = None
        self._since = NEVER

    def take_all(self, candles: Iterable[Candle]) -> bool:
        """Begin anew with all closed parts that a store has of the day and of the slot before, by open time.

        False: it lacks some that came here and are not remembered; then nothing is changed.
        """
        parts = {candle.open_time: _Part.of(candle) for candle in candles}
        if self._dropped_until > max((part.close_time for part in parts.values()), default=NEVER):
            return False
        for part in self._recent:
            known = parts.get(part.open_time)
            if known is None or part.version > known.version:
                parts[part.open_time] = part
        slots: dict[int, _Part] = {}
        for open_time in sorted(parts):
            start = open_time - open_time % self._step.slot_us
            slots[start] = slots[start].and_then(parts[open_time]) if start in slots else parts[open_time]
        self._slots = {start: slot.pack() for start, slot in slots.items()}
        self._is_known, self._closed = True, None
        return True

    def take_closed(self, candle: Candle) -> bool:
        """Take in a closed part that has come; False where it corrects what only a store can tell exactly."""
        part = _Part.of(candle)
        if len(self._recent) == self._recent.maxlen:
            self._dropped_until = max(self._dropped_until, self._recent[0].close_time)
        self._recent.append(part)
        if self._ahead is not None and self._ahead.open_time <= part.open_time:
            self._ahead = None
        self._closed = None
        start = part.open_time - part.open_time % self._step.slot_us
        packed = self._slots.get(start)
        slot = None if packed is None else _Part.unpack(packed)
        if slot is None or (slot.open_time, slot.close_time) == (part.open_time, part.close_time):
            if slot is None or part.version > slot.version:
                self._slots[start] = part.pack()
        elif part.open_time >= slot.close_time:
            self._slots[start] = slot.and_then(part).pack()
        else:
            return part.version <= slot.version
        return True

    def take_live(self, candle: Candle) -> None:
        """Take in how far a part has come."""
        part, known = _Part.of(candle), self._ahead
        newest = self._slots.get(max(self._slots, default=NEVER))
        is_over = newest is not None and part.open_time < _Part.unpack(newest).close_time
        if not is_over and (known is None or (part.open_time, part.version) > (known.open_time, known.version)):
            self._ahead = part

    def is_to_be_summed(self, now: int) -> bool:
        """Whether `look` will take longer: some closed parts are others than last time, or the day has gone on."""
        return self._is_known and (self._closed is None or self._step.start(now) != self._since)

    def look(self, now: int) -> Summary | None:
        """The 24 hours until now, µs, counted in whole slots; None: a store has not been asked yet."""
        if not self._is_known:
            return None
        since = self._step.start(now)
        if self._closed is None or since != self._since:
            self._since, self._closed = since, self._sum(since, now)
        closed, ahead = self._closed, self._ahead
        if ahead is None or ahead.open_time < since:
            return closed
        return Summary(
            EXACT.add(closed.volume, ahead.volume),
            EXACT.add(closed.quote_volume, ahead.quote_volume),
            ahead.open if closed.before is None else closed.before,
            ahead.close,
            closed.closes,
        )

    def _sum(self, since: int, now: int) -> Summary:
        slot_us = self._step.slot_us
        self._slots = {start: slot for start, slot in self._slots.items() if start >= since - slot_us}
        slots = {start: _Part.unpack(self._slots[start]) for start in sorted(self._slots)}
        before = slots.pop(since - slot_us, None)
        first = next(iter(slots.values()), None)
        volume = quote_volume = _ZERO
        closes: list[str] = []
        for start in range(since, max(slots, default=since) + slot_us, slot_us):
            slot = slots.get(start)
            if slot is not None:
                volume, quote_volume = EXACT.add(volume, slot.volume), EXACT.add(quote_volume, slot.quote_volume)
            if start + slot_us <= now and (slot is not None or closes):
                closes.append(closes[-1] if slot is None else format_decimal(slot.close))
        last = list(slots.values())[-1].close if slots else None if before is None else before.close
        began = before.close if before is not None else None if first is None else first.open
        return Summary(volume, quote_volume, began, last, tuple(closes))
