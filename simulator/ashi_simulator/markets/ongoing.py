"""A market that never closes: what it trades is a function of its name and of the time, and of nothing else.

So nothing has to be remembered. A simulator that was stopped or killed tells the same past when it starts again, the
time in which nobody ran it included, as an exchange does that went on meanwhile.

An hour has the same number of executions as any other, so that the place of one in the sequence is known without all
those before it; minutes share it by how lively they are.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from decimal import Decimal
from functools import cached_property, lru_cache
from hashlib import blake2b
from itertools import accumulate
from operator import attrgetter
from random import Random
from typing import TYPE_CHECKING, Final, overload

from ashi.contracts.decimals import format_decimal
from ashi_simulator.executions import PER_S, PER_US, Execution, ExecutionBatch, TrueTrade, true_trades
from ashi_simulator.markets.listings import Listings
from ashi_simulator.notation import venue_price, venue_size
from ashi_simulator.rules import contiguous

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MINUTE: Final = 60 * PER_S
HOUR: Final = 60 * MINUTE
OPENED: Final = 1_577_836_800 * PER_S
"""All of these markets opened on 2020-01-01."""
PUSHED_S: Final = 10
"""What is older than this when the simulator comes to it, as after a machine has slept, is not pushed: REST has it."""
ONGOING_TICK_S: Final = 0.04
"""How often it is looked at what has happened: it runs for days beside others, on a laptop."""
TRUTH_S: Final = 86_400
"""How far back the truth is told at most: that of years is of no use and takes minutes to make."""
MOST_MINUTES: Final = 256
MOST_EXECUTIONS: Final = 50_000
"""Of a market so many minutes are kept, or those that hold so many executions: what was forgotten is made again."""
MADE_BY: Final = MINUTE * 3 // 4
"""Into a minute the next one of every market is there."""
SWEEP: Final = 17
"""Executions of a message, as many as bitFlyer was ever seen to put into one."""

_FIRST_NUMBER: Final = 1_000_000
_STRIDE: Final = 3
"""Where ids are not contiguous, between those of one market are those of others."""

# Noise of many periods, each twice as long as the one before and, as in a random walk, stronger by the root of two.
_PERIODS: Final = tuple(15 * PER_S << octave for octave in range(18))
_SWING: Final = 0.015
"""Of the price within a day: what the noise whose period is a day adds at most."""
_AMPLITUDES: Final = tuple(_SWING * math.sqrt(period / (24 * HOUR)) for period in _PERIODS)
_JITTER: Final = 0.00003

_USD: Final = {"BTC": 68_000.0, "ETH": 2_600.0, "BNB": 590.0, "SOL": 170.0, "LTC": 85.0, "XRP": 21.0}
_PER_USD: Final = {"JPY": 150.0, "BTC": 1 / 68_000}
_USUAL_ORDER_USD: Final = 300.0

_at = attrgetter("at")


class OngoingMarkets:
    """Markets of one venue. `rate`: executions per second of each, on average; some have more, some less."""

    def __init__(self, venue: str, markets: Sequence[str], *, seed: int, rate: float) -> None:
        self._venue = venue
        self._seed = seed
        self._rate = rate
        self._walks: dict[str, _Walk] = {}
        self._open = list(markets)
        self._last: int | None = None

    def start(self, now: int) -> None:
        """Trade from `now` on (100 ns since the epoch)."""
        self._last = now

    def open(self, markets: Sequence[str]) -> None:
        """From now on these trade, and no other."""
        self._open = list(markets)

    def due(self, now: int) -> Iterator[ExecutionBatch]:
        """What happened since the last call, up to `now`."""
        assert self._last is not None  # noqa: S101  (started)
        since = max(self._last, now - PUSHED_S * PER_S)
        self._last = max(self._last, now)
        for market in self._open:
            walk = self._walk(market)
            begin, end = walk.count(since), walk.count(now)
            for place in range(begin, end, SWEEP):
                yield ExecutionBatch(market, [walk.execution(each) for each in range(place, min(place + SWEEP, end))])
        self._prepare(now)

    def _prepare(self, now: int) -> None:
        """Make the next minute of each market in the course of this one.

        All of them at once, when it begins, would hold up a venue of thousands of executions a second for seconds.
        """
        minute, rest = divmod(now - OPENED, MINUTE)
        for market in self._open[: len(self._open) * rest // MADE_BY]:
            self._walk(market).prepare(minute + 1)

    def history(self, market: str) -> OngoingHistory:
        """What it has traded, from its opening on."""
        return OngoingHistory(self._venue, market, self._walk(market), self.last)

    def last(self) -> int:
        """Up to when it has traded: 100 ns since the epoch, the market's opening before it was started."""
        return OPENED if self._last is None else self._last

    def _walk(self, market: str) -> _Walk:
        walk = self._walks.get(market)
        if walk is None:
            walk = self._walks[market] = _Walk(self._venue, market, self._seed, self._rate)
        return walk


class OngoingHistory:
    """All executions of one market, none of them kept."""

    def __init__(self, venue: str, market: str, walk: _Walk, last: Callable[[], int]) -> None:
        self.symbol = f"{venue}:{market}"
        self._venue = venue
        self._walk = walk
        self._last = last
        self._first: int | None = None

    def add(self, executions: Sequence[Execution], happened: int) -> None:
        """Nothing: they were known before."""

    def known(self, until: int) -> Sequence[Execution]:
        """What the venue's REST interface knows when it has seen only what happened by `until` (100 ns)."""
        return _Executions(self._walk, self._walk.count(until))

    def since(self, place: int) -> Iterator[tuple[Execution, int]]:
        """The executions from a place on, counted from the first call on, and when they happened (100 ns)."""
        end = self._walk.count(self._last())
        if self._first is None:
            self._first = end
        for each in range(self._first + place, end):
            execution = self._walk.execution(each)
            yield execution, execution.at

    def truth(self, since_us: int) -> Iterator[TrueTrade]:
        """Every trade at or after `since_us` (µs), of the last TRUTH_S at most, in the order of the market."""
        last = self._last()
        since = max(since_us * PER_US, last - TRUTH_S * PER_S)
        # From the beginning of a second: GMO counts the trades of a millisecond.
        begin, end = self._walk.count(since // PER_S * PER_S - 1), self._walk.count(last)
        trades = true_trades(self._venue, self.symbol, (self._walk.execution(each) for each in range(begin, end)))
        return (trade for trade in trades if trade.traded_at * PER_US >= since)


class _Executions(Sequence[Execution]):
    """The first so many executions of a market."""

    def __init__(self, walk: _Walk, count: int) -> None:
        self._walk = walk
        self._count = count

    def __len__(self) -> int:
        return self._count

    def place_of(self, number: int) -> int:
        """The place of the first execution whose number is not below `number`."""
        return min(self._walk.place_of(number), self._count)

    @overload
    def __getitem__(self, place: int) -> Execution: ...
    @overload
    def __getitem__(self, place: slice) -> list[Execution]: ...
    def __getitem__(self, place: int | slice) -> Execution | list[Execution]:
        if isinstance(place, slice):
            return [self._walk.execution(each) for each in range(*place.indices(self._count))]
        if not -self._count <= place < self._count:
            raise IndexError(place)
        return self._walk.execution(place % self._count) if place else self._walk.first


class _Walk:
    """One market: which execution is the n-th, and how many there were at a time."""

    def __init__(self, venue: str, market: str, seed: int, rate: float) -> None:
        self._venue = venue
        self._name = f"{seed} {venue}:{market}"
        listing = Listings(venue, [market])[market]
        self._tick = Decimal(listing.tick)
        per_quote = _PER_USD.get(listing.quote, 1.0)
        usd = _USD.get(listing.base) or 10.0 ** (2 + _noise(f"{self._name} price"))
        self._price = max(usd * per_quote, 1000 * float(self._tick))
        self._size = _USUAL_ORDER_USD * per_quote / self._price
        self._digits = min(8, max(1, 2 - math.floor(math.log10(self._size))))
        self._stride = 1 if contiguous(venue, market) or venue == "gmo" else _STRIDE
        self._per_hour = max(60, round(rate * 3600 * 2 ** _noise(f"{self._name} rate")))
        self._shares = lru_cache(maxsize=64)(self._make_shares)
        kept = max(4, min(MOST_MINUTES, MOST_EXECUTIONS * 60 // self._per_hour))
        self._minute = lru_cache(maxsize=kept)(self._make_minute)
        self._lattice = lru_cache(maxsize=4096)(self._make_lattice)

    def count(self, until: int) -> int:
        """How many executions there were up to a time (100 ns), it included."""
        if until < OPENED:
            return 0
        minute, _ = divmod(until - OPENED, MINUTE)
        hour, place = divmod(minute, 60)
        before = hour * self._per_hour + (self._shares(hour)[place - 1] if place else 0)
        return before + bisect_right(self._minute(minute), until, key=_at)

    def place_of(self, number: int) -> int:
        """The place of the first execution whose number is not below `number`: all of them follow each other."""
        return max(0, -(-(number - _FIRST_NUMBER) // self._stride))

    @cached_property
    def first(self) -> Execution:
        """The first one, which REST is asked for again and again."""
        return self.execution(0)

    def prepare(self, minute: int) -> None:
        """Make a minute (counted from the opening), so that it is there when it begins."""
        self._minute(minute)

    def execution(self, place: int) -> Execution:
        """The execution at a place, counted from 0."""
        hour, rest = divmod(place, self._per_hour)
        shares = self._shares(hour)
        minute = bisect_right(shares, rest)
        return self._minute(hour * 60 + minute)[rest - (shares[minute - 1] if minute else 0)]

    def _make_shares(self, hour: int) -> list[int]:
        """How many executions of the hour there are up to the end of each of its minutes."""
        lively = [math.exp(_noise(f"{self._name} lively {hour * 60 + minute}")) for minute in range(60)]
        total = sum(lively)
        shares = [int(self._per_hour * part / total) for part in accumulate(lively)]
        shares[-1] = self._per_hour
        return shares

    def _make_minute(self, minute: int) -> list[Execution]:
        hour, place = divmod(minute, 60)
        shares = self._shares(hour)
        before = shares[place - 1] if place else 0
        random = Random(f"{self._name} {minute}")  # noqa: S311  (a market, not a secret)
        begin = OPENED + minute * MINUTE
        times = sorted(random.randrange(MINUTE) for _ in range(shares[place] - before))
        number = _FIRST_NUMBER + (hour * self._per_hour + before) * self._stride
        return [self._execution(number + each * self._stride, begin + time, random) for each, time in enumerate(times)]

    def _execution(self, number: int, at: int, random: Random) -> Execution:
        if self._venue == "bitflyer" and at % 100 == 0:
            at += 1  # as its websocket trims at most one zero of the 100 ns
        taker = "BUY" if random.random() < 0.5 else "SELL"
        price = self._price * math.exp(self._level(at - OPENED) + random.gauss(0.0, _JITTER))
        ticks = max(1, round(price / float(self._tick)) + (taker == "BUY"))
        size = max(self._size * math.exp(random.gauss(-0.8, 1.2)), 10.0**-self._digits)
        return Execution(
            number,
            venue_price(self._venue, format_decimal(ticks * self._tick)),
            venue_size(self._venue, format_decimal(Decimal(f"{size:.{self._digits}f}"))),
            taker,
            at,
        )

    def _level(self, at: int) -> float:
        """How far the price is from the market's usual one, as a logarithm, so long after the opening (100 ns)."""
        level = 0.0
        for octave, period in enumerate(_PERIODS):
            place, rest = divmod(at, period)
            part = rest / period
            weight = part * part * (3 - 2 * part)
            before, after = self._lattice(octave, place), self._lattice(octave, place + 1)
            level += _AMPLITUDES[octave] * (before + weight * (after - before))
        return level

    def _make_lattice(self, octave: int, place: int) -> float:
        return _noise(f"{self._name} {octave} {place}")


def _noise(name: str) -> float:
    """A number from -1 to 1 that the name alone decides."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") / (1 << 63) - 1
