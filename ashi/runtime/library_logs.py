"""What libraries may log: the same warning at most once a minute, and one line when an outage is over.

While a broker is away, the client library tells of each attempt of each of its parts: dozens of lines a second that
bury ours and fill disks. What Ashi itself tries again and again and tells each time by a `get_weather_logger` is held
back in the same way.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LIBRARIES: Final = ("aiokafka", "faust", "mode", "aiohttp", "kafka", "asyncio", "websockets")
"""Loggers of libraries: they log from WARNING on, unless ASHI_LOG_LEVEL is debug."""
WEATHER: Final = "weather"
"""Our own loggers of what lasts, by the first part of their names."""
INTERVAL_S: Final = 60.0
"""The same warning is written at most once in so many seconds."""
QUIET_S: Final = 20.0
"""An outage is over when nothing was logged of it for so long."""
GRACE_S: Final = 15.0
"""So long a cluster may answer "not yet": a group's coordinator that is being made, a leader that is being elected."""

STEP_GRACE_S: Final = 3.0
"""So long Kafka may take to end one transaction before the next of its writer goes on."""

_NOT_YET: Final = frozenset(
    {
        "GroupCoordinatorNotAvailableError",
        "GroupLoadInProgressError",
        "NotCoordinatorForGroupError",
        "LeaderNotAvailableError",
        "NotLeaderForPartitionError",
        "ConcurrentTransactions",
    }
)
"""By the library's names, which are not imported: whoever only logs shall not need it."""
_FOLLOWS_FROM_NOT_YET: Final = "Marking the coordinator dead"
_HELD_BACK: Final = frozenset({*LIBRARIES, WEATHER})
_MOST_CAUSES: Final = 500
_KEY_LENGTH: Final = 120


@dataclass(slots=True)
class _Cause:
    """One warning, whatever its arguments. Times are of the clock, seconds.

    Attributes:
        began_s: when the outage began.
        last_s: when it came last.
        written_s: when it was written last; None: never.
        held: how often it was not written since then.
        held_of_outage: how often it was not written since its end was told last.
        begun: whether it was written since then: who reads of an end has read of its beginning.

    """

    began_s: float
    last_s: float
    written_s: float | None = None
    held: int = 0
    held_of_outage: int = 0
    begun: bool = False


class StepFilter(logging.Filter):
    """For the library's sender: holds back that Kafka is still ending the step before, at the beginning of a step.

    Kafka 4 answers CONCURRENT_TRANSACTIONS to a client of before as "not enough replicas", and the library, which tries
    again after 0.1 s, warns of it. A lack of replicas lasts, and is told once a step has taken `STEP_GRACE_S`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self.began_s: float | None = None
        """When the step in hand began; None between steps."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record goes on."""
        if self.began_s is None or self._clock() - self.began_s >= STEP_GRACE_S or not isinstance(record.args, tuple):
            return True
        return not any(_name(argument) == "NotEnoughReplicasError" for argument in record.args)


class LibraryFilter(logging.Filter):
    """Holds back what libraries and our loggers of weather repeat, and tells how much that was. Touches nothing else.

    A cause is a logger and the template of its message, not the arguments: a hundred partitions fail for one reason. A
    record that passes after others of its cause were held back carries their number as `held_back`.
    """

    def __init__(
        self, say: Callable[[str, int, Mapping[str, int]], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`say` gets a sentence, how many lines were held back, and how many of each cause."""
        super().__init__()
        self._say = say
        self._clock = clock
        self._causes: dict[tuple[str, str], _Cause] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._closed = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if record.levelno < logging.WARNING or record.name.partition(".")[0] not in _HELD_BACK:
            return True
        now_s = self._clock()
        with self._lock:
            cause = self._cause(record, now_s)
            cause.last_s = now_s
            if _is_not_yet(record) and now_s - cause.began_s < GRACE_S:
                return False
            if cause.written_s is not None and now_s - cause.written_s < INTERVAL_S:
                cause.held += 1
                cause.held_of_outage += 1
                self._wake_later()
                return False
            cause.written_s, cause.begun = now_s, True
            if cause.held:
                record.held_back, cause.held = cause.held, 0
            return True

    def look(self) -> None:
        """Tell of outages that are over. Called by a timer while anything is held back."""
        now_s = self._clock()
        with self._lock:
            held = {key: cause for key, cause in self._causes.items() if cause.held_of_outage}
            if any(now_s - cause.last_s < QUIET_S for cause in held.values()):
                self._wake_later()  # one line for all that an outage has caused
                return
        # An outage that came again within the minute has no line of its own: it counts with the next that has.
        self._tell(f"repeated warnings have ended, none for {QUIET_S:g} s", only_begun=True)

    def close(self) -> None:
        """Tell of what was held back and not told of yet, for the end of a process."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        self._tell("warnings were repeated")

    def _tell(self, sentence: str, *, only_begun: bool = False) -> None:
        with self._lock:
            told = {key: cause for key, cause in self._causes.items() if cause.begun or not only_begun}
            held = {": ".join(key): cause.held_of_outage for key, cause in told.items() if cause.held_of_outage}
            for cause in told.values():
                cause.held = cause.held_of_outage = 0
                cause.begun = False
        if held:
            self._say(sentence, sum(held.values()), held)

    def _cause(self, record: logging.LogRecord, now_s: float) -> _Cause:
        key = (record.name, _template(record))
        cause = self._causes.get(key)
        if cause is None:
            if len(self._causes) >= _MOST_CAUSES:
                self._causes = {
                    kept: old
                    for kept, old in self._causes.items()
                    if old.held_of_outage or now_s - old.last_s < INTERVAL_S
                }
            cause = self._causes[key] = _Cause(now_s, now_s)
        elif now_s - cause.last_s >= QUIET_S:
            cause.began_s = now_s
        return cause

    def _wake_later(self) -> None:
        if self._closed:
            return  # a thread that is started while Python ends never begins, and whoever starts it waits for that
        if self._timer is None or not self._timer.is_alive() or self._timer is threading.current_thread():
            self._timer = threading.Timer(QUIET_S, self.look)
            self._timer.daemon = True
            self._timer.start()


def limit_last_resort(say: Callable[[str, int, Mapping[str, int]], None]) -> LibraryFilter:
    """For commands that are no workers: what libraries log reaches stderr by `logging.lastResort`."""
    repetitions = LibraryFilter(say)
    if logging.lastResort is not None:
        logging.lastResort.filters[:] = [repetitions]
    return repetitions


def silence_client_library() -> None:
    """For commands that say themselves what is wrong with Kafka, perhaps on a screen that other lines break into."""
    if logging.lastResort is not None:
        logging.lastResort.addFilter(_is_not_of_client_library)


def _is_not_of_client_library(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] != "aiokafka"


def limit_client_library() -> None:
    """For programs of others that use our clients: what the client library repeats is held back from their handlers."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] == "aiokafka" and isinstance(logger, logging.Logger):
            logger.addFilter(_OF_CLIENTS)


def _tell_programs(sentence: str, count: int, causes: Mapping[str, int]) -> None:
    logging.getLogger("ashi.client").warning("%s: %d were not written, %s", sentence, count, dict(causes))


_OF_CLIENTS: Final = LibraryFilter(_tell_programs)


def _template(record: logging.LogRecord) -> str:
    message = record.msg.get("event") if isinstance(record.msg, dict) else record.msg  # ours are dictionaries
    text = str(message).partition("\n")[0]
    # Where the values are in the text already, at least numbers and addresses must not make a cause of each.
    return (text if record.args else re.sub(r"0x[0-9a-f]+|\d+", "0", text))[:_KEY_LENGTH]


def _is_not_yet(record: logging.LogRecord) -> bool:
    """Whether this is how a cluster says that it is still making or electing something."""
    if str(record.msg).startswith(_FOLLOWS_FROM_NOT_YET):
        return True
    arguments: Any = record.args.values() if isinstance(record.args, dict) else record.args or ()
    return any(_name(argument) in _NOT_YET for argument in arguments)


def _name(argument: object) -> str:
    if isinstance(argument, str):
        return argument
    return argument.__name__ if isinstance(argument, type) else type(argument).__name__
