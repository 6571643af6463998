"""The feeds by what topic `feed.status` says of each: pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from ashi.contracts.feed import STALE_AFTER_US, FeedStatus, is_stale
from ashi.contracts.symbol import split_symbol
from ashi_operations.status.snapshot import KINDS, Feed, FeedKind, Feeds, Venue

if TYPE_CHECKING:
    from collections.abc import Collection

MOST_TROUBLED: Final = 100
LAST_WORDS: Final = "nothing was heard of it; it "
"""How the reason of a stale feed begins; how it was then follows."""


class FeedTable:
    """The last status of each symbol. Some 500 bytes of memory each."""

    def __init__(self) -> None:
        self._statuses: dict[str, FeedStatus] = {}

    def __len__(self) -> int:
        return len(self._statuses)

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._statuses

    def take(self, status: FeedStatus) -> None:
        """A message of the topic; of two of a symbol the greater `updated_at` counts, as after more partitions."""
        known = self._statuses.get(status.symbol)
        if known is None or status.updated_at >= known.updated_at:
            self._statuses[status.symbol] = status

    def view(self, now_us: int, symbols: Collection[str] | None = None) -> Feeds:
        """All, or those of `symbols`, as of a time in µs; those that are asked for by name are told in any case."""
        statuses = [status for status in self._statuses.values() if symbols is None or status.symbol in symbols]
        feeds = [_feed(status, now_us) for status in statuses]
        troubled = [feed for feed in feeds if symbols is not None or feed.state != "connected" or feed.reason]
        troubled.sort(key=lambda feed: (KINDS.index(feed.state), -feed.since, feed.symbol))
        told = _bounded(troubled)
        by_venue: defaultdict[str, list[Feed]] = defaultdict(list)
        for feed in feeds:
            by_venue[split_symbol(feed.symbol)[0]].append(feed)
        workers = {
            worker.id for status in statuses for worker in status.workers if now_us - worker.heartbeat <= STALE_AFTER_US
        }
        return Feeds(
            symbols=len(feeds),
            states=_states(feeds),
            workers=len(workers),
            venues=[_venue(venue, of_venue) for venue, of_venue in sorted(by_venue.items())],
            troubled=told,
            troubled_left_out=len(troubled) - len(told),
        )


def _feed(status: FeedStatus, now_us: int) -> Feed:
    stale = is_stale(status, now_us)
    return Feed(
        symbol=status.symbol,
        state="stale" if stale else status.state,
        since=status.updated_at if stale else status.since,
        reason=_last_words(status) if stale else status.reason,
        last_traded_at=status.last_traded_at,
        complete_until=status.complete_until,
        workers=sum(now_us - worker.heartbeat <= STALE_AFTER_US for worker in status.workers),
    )


def _bounded(troubled: list[Feed]) -> list[Feed]:
    """At most `MOST_TROUBLED`, and the latest in each state of each venue: none hides behind another's many."""
    seen: set[tuple[str, FeedKind]] = set()
    first: list[Feed] = []
    others: list[Feed] = []
    for feed in troubled:
        kind = split_symbol(feed.symbol)[0], feed.state
        (others if kind in seen else first).append(feed)
        seen.add(kind)
    kept = {feed.symbol for feed in (first + others)[: max(MOST_TROUBLED, len(first))]}
    return [feed for feed in troubled if feed.symbol in kept]


def _last_words(status: FeedStatus) -> str:
    return f"{LAST_WORDS}was {status.state}" + ("" if status.reason is None else f": {status.reason}")


def _venue(venue: str, feeds: list[Feed]) -> Venue:
    alive = [feed.complete_until for feed in feeds if feed.state != "stale"]
    return Venue(
        venue=venue,
        symbols=len(feeds),
        states=_states(feeds),
        last_traded_at=max((feed.last_traded_at for feed in feeds if feed.last_traded_at is not None), default=None),
        complete_until=None if None in alive else min((each for each in alive if each is not None), default=None),
    )


def _states(feeds: list[Feed]) -> dict[FeedKind, int]:
    counts = Counter(feed.state for feed in feeds)
    return {kind: counts[kind] for kind in KINDS if counts[kind]}
