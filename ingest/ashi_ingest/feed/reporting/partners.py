"""Several workers that read one symbol: who they are, by what they say in `feed.status`, and what they say together.

Each trade is then published several times, and counts once. The topic is compacted by symbol, so the last message of
any of them stands for all. Each therefore writes what all of them come to: the best of their states, the latest trade,
the greatest `complete_until`, which is true whoever checked it, as all publish into one topic.

Whether another one lives is judged by our own clock, from when its heartbeat was last seen to advance: clocks of two
machines differ. One that stands in the last message from before our start, and may be our own predecessor that was
killed, counts for two heartbeats unless it is seen to live. Pure: it is told what is read, and what time it is.
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from ashi.contracts.feed import HEARTBEAT_US, STALE_AFTER_US, FeedStatus, FeedWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ashi.contracts.feed import FeedState

EXPIRES_S: Final = STALE_AFTER_US / 1e6
INHERITED_S: Final = 2 * HEARTBEAT_US / 1e6
NAMED: Final = 3
"""Of more workers than this a reason names only the first."""

_RANK: Final[dict[FeedState, int]] = {"connected": 0, "silent": 1, "repairing": 2, "down": 3}


class WorkerIdentity(NamedTuple):
    """How a worker names itself in `feed.status`.

    `redundant`: it was told that it is one of several that read the same markets (`--redundant`).
    """

    id: str
    redundant: bool = False


def new_identity(*, redundant: bool = False) -> WorkerIdentity:
    """Of this process. It is another one after each start: host, process, and what makes both unique."""
    return WorkerIdentity(f"{socket.gethostname()}/{os.getpid()}-{secrets.token_hex(3)}", redundant)


class Shared(NamedTuple):
    """What is said of a symbol by all who read it.

    Attributes:
        state: the best of theirs.
        reason: of the best one.
        workers: all of them, by id.

    """

    state: FeedState
    reason: str | None
    workers: tuple[FeedWorker, ...]


@dataclass(slots=True)
class _Other:
    """Another worker, as it was seen last. `until_s`: it counts so long; `connected_since` is in its own clock, µs."""

    worker: FeedWorker
    until_s: float
    advances: bool = False
    connected_since: int | None = None


@dataclass(slots=True)
class _Symbol:
    """What others have said of a symbol: each of them, and the last message that was not ours."""

    others: dict[str, _Other] = field(default_factory=dict)
    last: FeedStatus | None = None


class OtherWorkers:
    """All others that read symbols of this worker."""

    def __init__(self, own: WorkerIdentity, monotonic_s: Callable[[], float]) -> None:
        self._own = own
        self._monotonic_s = monotonic_s
        self._symbols: dict[str, _Symbol] = {}

    def inherit(self, status: FeedStatus, now_us: int) -> None:
        """What was said last before our start. `now_us`: by our clock, as that of whoever said it is not known yet.

        Its last trade does not count: a worker that was killed may have said it of one that Kafka never got.
        """
        entry = self._symbols.setdefault(status.symbol, _Symbol())
        for worker in status.workers:
            left_s = INHERITED_S - abs(now_us - worker.heartbeat) / 1e6
            if worker.id != self._own.id and left_s > 0:
                since = worker.heartbeat if worker.state == "connected" else None
                entry.others[worker.id] = _Other(worker, self._monotonic_s() + left_s, connected_since=since)

    def take(self, status: FeedStatus) -> bool:
        """A message came, perhaps one of ours. False when it is no later one of anybody else.

        Only what its writer says of itself counts. Were what it says of a third taken as well, two workers would keep a
        third alive for each other for ever.
        """
        for worker in status.workers:
            if worker.heartbeat == status.updated_at and worker.id != self._own.id:
                entry = self._symbols.setdefault(status.symbol, _Symbol())
                if self._see(entry, worker):
                    entry.last = status
                    return True
        return False

    def expire(self) -> set[str]:
        """Forget those that have not been heard of for too long. Gives the symbols that had one."""
        now_s = self._monotonic_s()
        changed = set()
        for symbol, entry in self._symbols.items():
            for id_ in [id_ for id_, other in entry.others.items() if other.until_s <= now_s]:
                del entry.others[id_]
                changed.add(symbol)
        return changed

    def last(self, symbol: str) -> FeedStatus | None:
        """The last message of another worker about a symbol since our start, also of one that is gone by now."""
        entry = self._symbols.get(symbol)
        return None if entry is None else entry.last

    def others(self, symbol: str) -> list[FeedWorker]:
        """Those that count now."""
        entry = self._symbols.get(symbol)
        return [] if entry is None else [other.worker for other in entry.others.values()]

    def shared(self, symbol: str, own: FeedWorker, reason: str | None) -> Shared:
        """What is to be said of a symbol, by `own` and all others. `reason`: our own."""
        entry = self._symbols.get(symbol)
        if entry is None or not entry.others:
            return Shared(own.state, reason, (own,))
        workers = sorted([own, *(other.worker for other in entry.others.values())], key=lambda worker: worker.id)
        best = min(workers, key=lambda worker: (_RANK[worker.state], worker is not own))
        if best is not own:
            reason = entry.last.reason if entry.last is not None and entry.last.state == best.state else None
        return Shared(best.state, reason, tuple(workers))

    def rivals(self, symbol: str) -> list[FeedWorker]:
        """Others that live and read the symbol too, although not all were told so; by id."""
        return [worker for worker in self._alive(symbol) if not (worker.redundant and self._own.redundant)]

    def partners(self, symbol: str) -> list[FeedWorker]:
        """Others that live and read the symbol too, on purpose as we do; by id."""
        return [worker for worker in self._alive(symbol) if worker.redundant and self._own.redundant]

    def symbols(self) -> Iterator[str]:
        """Those that another one reads."""
        return (symbol for symbol, entry in self._symbols.items() if entry.others)

    def has_published(self, symbol: str, from_us: int, to_us: int) -> bool:
        """Whether another one was connected before `from_us` and has checked that nothing is missing up to `to_us`.

        Times in µs; but for gaps of its own, which are to be asked of `feed.gaps`.
        """
        entry = self._symbols.get(symbol)
        return entry is not None and any(
            other.connected_since is not None
            and other.connected_since <= from_us
            and (other.worker.complete_until or 0) >= to_us
            for other in entry.others.values()
        )

    def _alive(self, symbol: str) -> list[FeedWorker]:
        entry = self._symbols.get(symbol)
        alive = [
            other.worker
            for other in (entry.others.values() if entry is not None else ())
            if other.advances and other.worker.state != "down"  # which it may say as it ends
        ]
        return sorted(alive, key=lambda worker: worker.id)

    def _see(self, entry: _Symbol, worker: FeedWorker) -> bool:
        before = entry.others.get(worker.id)
        if before is not None and worker.heartbeat <= before.worker.heartbeat:
            return False
        since = None
        if worker.state == "connected":
            since = worker.heartbeat if before is None or before.connected_since is None else before.connected_since
        entry.others[worker.id] = _Other(
            worker, self._monotonic_s() + EXPIRES_S, advances=before is not None, connected_since=since
        )
        return True


def rivalry(workers: list[FeedWorker], own: WorkerIdentity) -> str:
    """The reason that every one of several workers gives that were not told of each other."""
    ids = sorted([own.id, *(worker.id for worker in workers)])
    named = ", ".join(ids[:NAMED]) + (f" and {len(ids) - NAMED} more" if len(ids) > NAMED else "")
    return (
        f"{len(ids)} workers read this symbol and not all were started with --redundant: {named}; each trade is "
        "published by each of them and counts once"
    )


def later_of(own: FeedStatus, other: FeedStatus) -> FeedStatus:
    """Our status with what another worker knows further: the last trade, and up to when all are known."""
    if (other.complete_until or 0) > (own.complete_until or 0):
        own = replace(own, complete_until=other.complete_until)
    if (other.last_traded_at or 0) > (own.last_traded_at or 0):
        own = replace(own, last_trade_id=other.last_trade_id, last_traded_at=other.last_traded_at)
    return own
