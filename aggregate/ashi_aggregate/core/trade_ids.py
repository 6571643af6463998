"""Which trades have been counted: ids by window, as intervals where they are dense."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import islice, pairwise
from operator import lt
from typing import Final

import msgspec

MAX_IDS: Final = 40_000
"""At most so many intervals are kept of a symbol (a text counts as one for each 16 characters begun). Beyond, its
oldest window is given up: `dropped_until` rises past it, so that a trade of it is late and not counted twice. As
differences they usually take 6 bytes each, 22 at most."""

COPIES_APART_US: Final = 1_000_000
"""The most that the timestamps of two copies of one trade may differ: venues round them differently on their ways."""


class WindowIds(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """The ids of the trades of one finest window.

    Attributes:
        numbers: disjoint intervals of numeric ids in ascending order: start, end (exclusive), start, end, …
        texts: ids that are not numbers.

    """

    numbers: list[int] = []
    texts: set[str] = set()

    def __len__(self) -> int:
        return len(self.numbers) // 2 + sum(map(_length, self.texts))

    def __contains__(self, trade_id: int | str) -> bool:
        if isinstance(trade_id, str):
            return trade_id in self.texts
        return bisect_right(self.numbers, trade_id) % 2 == 1

    def add(self, trade_id: int | str) -> int:
        """Add an id that is not contained; gives by how much the length has grown, which may be by less than none."""
        if isinstance(trade_id, str):
            self.texts.add(trade_id)
            return _length(trade_id)
        before = len(self.numbers)
        self._add_interval(trade_id, trade_id + 1)
        return (len(self.numbers) - before) // 2

    def add_ascending(self, ids: Sequence[int]) -> int:
        """Add ids in ascending order, none of them contained; gives by how much the length has grown."""
        before = len(self.numbers)
        self._add_runs(ids)
        return (len(self.numbers) - before) // 2

    def _add_runs(self, ids: Sequence[int]) -> None:
        if ids[-1] - ids[0] + 1 == len(ids):
            self._add_interval(ids[0], ids[-1] + 1)
            return
        start = ids[0]
        for previous, following in pairwise(ids):
            if following != previous + 1:
                self._add_interval(start, previous + 1)
                start = following
        self._add_interval(start, ids[-1] + 1)

    def _add_interval(self, start: int, end: int) -> None:
        """Add [start, end), which overlaps no other, joining it with those it touches."""
        numbers = self.numbers
        place = bisect_left(numbers, start)
        # At an even place lies between intervals; an odd one means that an interval ends exactly at `start`.
        first = place - place % 2
        joins_before = place % 2 == 1
        after = place + 1 if joins_before else place
        joins_after = after < len(numbers) and numbers[after] == end
        begin = numbers[first] if joins_before else start
        stop = numbers[after + 1] if joins_after else end
        numbers[first : after + 2 if joins_after else after] = [begin, stop]


class TradeIds:
    """The ids of one symbol's trades within the horizon, by the finest window of their time."""

    def __init__(self, windows: dict[int, WindowIds], finest_us: int, most: int | None = None) -> None:
        """Take up `windows` (by start, µs), which stay the caller's to store, and keep `most` ids; None: `MAX_IDS`."""
        self._most = MAX_IDS if most is None else most
        self.windows = windows
        self._finest_us = finest_us
        self._count = sum(map(len, windows.values()))
        self._greatest = max((ids.numbers[-1] - 1 for ids in windows.values() if ids.numbers), default=-1)

    def __len__(self) -> int:
        """How many intervals are kept of all windows, texts as told by `MAX_IDS`."""
        return self._count

    def admit(self, trade_id: str, traded_at: int) -> bool:
        """Count a trade; False when a trade of that id and about that time (µs) has been counted before."""
        number = as_number(trade_id)
        finest_us = self._finest_us
        own = traded_at - traded_at % finest_us
        first = traded_at - COPIES_APART_US
        for start in range(first - first % finest_us, traded_at + COPIES_APART_US + 1, finest_us):
            ids = self.windows.get(start)
            if ids is not None and number in ids:
                return False
        ids = self.windows.get(own)
        if ids is None:
            ids = self.windows[own] = WindowIds()
        self._count += ids.add(number)
        if isinstance(number, int):
            self._greatest = max(self._greatest, number)
        return True

    def admit_texts(self, trade_ids: Sequence[str], times: Sequence[int]) -> bytearray | None:
        """What `admit` says of each of these trades (1 or 0), one after the other; None where one by one is the way.

        So it is where an id may be a number, or a window might have to be given up.
        """
        if any(map(str.isdecimal, trade_ids)) or self._count + sum(map(_length, trade_ids)) > self._most:
            return None
        admitted = bytearray(len(trade_ids))
        inner = end = 0  # where all copies of a trade are in its own window, most trades in the same as the one before
        texts: set[str] = set()
        grown = 0
        for place, (trade_id, traded_at) in enumerate(zip(trade_ids, times, strict=True)):
            if not inner <= traded_at < end:
                start = traded_at - traded_at % self._finest_us
                if not start + COPIES_APART_US <= traded_at < start + self._finest_us - COPIES_APART_US:
                    admitted[place] = self.admit(trade_id, traded_at)
                    continue
                inner, end = start + COPIES_APART_US, start + self._finest_us - COPIES_APART_US
                texts = self.windows.setdefault(start, WindowIds()).texts
            if trade_id not in texts:
                texts.add(trade_id)
                grown += _length(trade_id)
                admitted[place] = 1
        self._count += grown
        return admitted

    def all_new(self, numbers: Sequence[int]) -> bool:
        """Whether a look at their order shows that none of these ids has been counted, nor is one given twice.

        True as well only if all of them can be kept without giving up a window.
        """
        return (
            numbers[0] > self._greatest
            and all(map(lt, numbers, islice(numbers, 1, None)))
            and self._count + len(numbers) <= self._most
        )

    def add_ascending(self, start: int, numbers: Sequence[int]) -> None:
        """Count the trades of one window that begins at `start` (µs), of which `all_new` was told."""
        ids = self.windows.get(start)
        if ids is None:
            ids = self.windows[start] = WindowIds()
        self._count += ids.add_ascending(numbers)
        self._greatest = max(self._greatest, numbers[-1])

    @property
    def greatest(self) -> int:
        """The greatest id that is a number, -1 where there is none."""
        return self._greatest

    @property
    def room(self) -> int:
        """So many intervals more may be kept."""
        return max(self._most - self._count, 0)

    def add_intervals(self, start: int, numbers: Sequence[int]) -> None:
        """Count the trades of one window that begins at `start` (µs): intervals, of ids greater than all before."""
        ids = self.windows.get(start)
        if ids is None:
            ids = self.windows[start] = WindowIds()
        before = len(ids.numbers)
        if ids.numbers and ids.numbers[-1] == numbers[0]:
            ids.numbers[-1:] = numbers[1:]
        else:
            ids.numbers += numbers
        self._count += (len(ids.numbers) - before) // 2
        self._greatest = max(self._greatest, numbers[-1] - 1)

    def replace(self, start: int, numbers: list[int]) -> None:
        """Let the window that begins at `start` (µs) have these intervals, which hold those that it has."""
        ids = self.windows.get(start)
        if ids is None:
            ids = self.windows[start] = WindowIds()
        self._count += (len(numbers) - len(ids.numbers)) // 2
        ids.numbers = numbers
        self._greatest = max(self._greatest, numbers[-1] - 1)

    @property
    def has_texts(self) -> bool:
        """Whether the ids of the newest trades are texts."""
        return bool(self.windows) and bool(next(reversed(self.windows.values())).texts)

    def add_texts(self, windows: Sequence[tuple[int, int, Sequence[str]]]) -> bool:
        """Count trades by finest window, if a look at all ids together shows that each would count; else none.

        `windows`: start (µs), how much the length of its ids is, and the ids, which are no numbers. There must be room.
        """
        new = set(windows[0][2]) if len(windows) == 1 else {text for _, _, texts in windows for text in texts}
        if len(new) < sum(len(texts) for _, _, texts in windows):
            return False
        # Where copies could be, and a little beyond.
        first = min(start for start, _, _ in windows) - COPIES_APART_US - self._finest_us
        last = max(start for start, _, _ in windows) + COPIES_APART_US + self._finest_us
        for start, ids in self.windows.items():
            if first < start < last and not ids.texts.isdisjoint(new):
                return False
        for start, weight, texts in windows:
            ids = self.windows.setdefault(start, WindowIds())
            ids.texts.update(new if len(windows) == 1 else texts)  # a set knows its hashes
            self._count += weight
        return True

    def forget_before(self, time: int) -> None:
        """Forget the windows that ended at or before `time` (µs)."""
        self._forget([start for start in self.windows if start + self._finest_us <= time])

    def give_up_oldest(self) -> int | None:
        """If there are too many, forget the ids of the oldest window and return that window's end (µs)."""
        if self._count <= self._most:
            return None
        oldest = min(self.windows)
        self._forget([oldest])
        return oldest + self._finest_us

    def _forget(self, starts: Iterable[int]) -> None:
        for start in starts:
            self._count -= len(self.windows.pop(start))


def _length(text: str) -> int:
    return 1 + len(text) // 16


def as_number(trade_id: str) -> int | str:
    """The id as an integer if that says all of it: `7`, but not `07`."""
    if trade_id.isdecimal() and trade_id.isascii() and (trade_id[0] != "0" or trade_id == "0"):
        return int(trade_id)  # contracts allow 128 digits at most
    return trade_id


def as_numbers(trade_ids: Sequence[str]) -> list[int] | None:
    """All ids as integers, or None when one of them is not just a number."""
    lines = "\n" + "\n".join(trade_ids)
    digits = lines.replace("\n", "")
    plain = digits.isdecimal() and digits.isascii() and "\n0" not in lines and "\n\n" not in lines + "\n"
    return list(map(int, trade_ids)) if plain else None
