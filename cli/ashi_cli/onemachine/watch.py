"""How a stack that runs all the time is told to whoever watches it: feeds that come and go, and a line of figures."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from ashi.client import read_feed_status
from ashi.contracts.errors import BrokerError, StateError
from ashi.runtime.wall_clock import now_us
from ashi_cli.onemachine.flow import read_progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from ashi.contracts.feed import FeedState, FeedStatus
    from ashi.runtime.settings import Settings
    from ashi_cli.onemachine.flow import Progress
    from ashi_cli.onemachine.reporter import Reporter

FIGURES_S: Final = 3.0
LOG_S: Final = 60.0
"""Where nobody sees each update, as in a file."""
_AGAIN_S: Final = 1.0
_LOOK_S: Final = 0.5
LINES_A_MINUTE: Final = 20
LASTING_S: Final = 4.0

_CONNECTED: Final = "is connected"
_WORDS: Final[dict[FeedState, str]] = {
    "connected": _CONNECTED,
    "silent": _CONNECTED,
    "repairing": "is catching up",
    "down": "is down",
}


class FeedStates:
    """The feeds' states, and which changes of them are worth a line: what is over within seconds is none."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._now: dict[str, FeedStatus] = {}
        self._told: dict[str, str] = {}
        self._untold: dict[str, float] = {}  # since when
        self._said_at: deque[float] = deque(maxlen=LINES_A_MINUTE)

    def take(self, status: FeedStatus) -> None:
        """A message of `feed.status`, of a worker that runs now."""
        before = self._now.get(status.symbol)
        self._now[status.symbol] = status
        words = _WORDS[status.state]
        if words == self._told.get(status.symbol):
            self._untold.pop(status.symbol, None)
        elif before is None or words != _WORDS[before.state]:
            self._untold[status.symbol] = self._clock()

    def tell(self) -> None:
        """Say what has changed. Called every second or so."""
        now = self._clock()
        for symbol, since in list(self._untold.items()):
            status = self._now[symbol]
            words = _WORDS[status.state]
            if words != _CONNECTED and now - since < LASTING_S:
                continue
            del self._untold[symbol]
            self._told[symbol] = words
            if len(self._said_at) == LINES_A_MINUTE and now - self._said_at[0] < 60:
                continue  # many at once: the figures tell how many are connected
            self._said_at.append(now)
            self._say(f"{symbol} {words}" + (f": {status.reason}" if status.reason else ""))

    def __str__(self) -> str:
        connected = sum(_WORDS[status.state] == _CONNECTED for status in self._now.values())
        return f"{connected} of {len(self._now)} markets connected"


class Watch:
    """Reads from Kafka what there is to tell, for as long as `run` does."""

    def __init__(self, settings: Settings, sink_group: str, reporter: Reporter) -> None:
        self._settings = settings
        self._sink_group = sink_group
        self._reporter = reporter
        self._feeds = FeedStates(reporter.say)
        self._since_us = now_us()
        self._every_s = FIGURES_S if reporter.is_watched else LOG_S

    async def run(self) -> None:
        """Until cancelled. What cannot be read now is read later: whether the broker runs is for others to see."""
        await asyncio.gather(self._read_feeds(), self._read_figures(), self._tell_feeds())

    async def _read_feeds(self) -> None:
        while True:
            try:
                async with read_feed_status(self._settings, on_unreadable=lambda _: None) as reader:
                    async for status in reader:
                        if status.updated_at >= self._since_us:  # else it is of the last time
                            self._feeds.take(status)
            except (BrokerError, StateError):
                await asyncio.sleep(_AGAIN_S)

    async def _tell_feeds(self) -> None:
        while True:
            self._feeds.tell()
            await asyncio.sleep(_LOOK_S)

    async def _read_figures(self) -> None:
        while True:
            try:
                self._reporter.update(self._line(await read_progress(self._settings, self._sink_group)))
            except BrokerError:
                await asyncio.sleep(_AGAIN_S)
            else:
                await asyncio.sleep(self._every_s)

    def _line(self, progress: Progress) -> str:
        behind = progress.published - progress.aggregated
        waiting = f" ({behind:,} to be read)" if behind > 1000 else ""
        return (
            f"{self._feeds}; {progress.published:,} trades{waiting}, {progress.stored:,} candles stored; Ctrl-C ends it"
        )
