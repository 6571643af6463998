"""What clients take of the limits: enforced where the venue has a limit, and measured in any case."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, Final

JITTER_S: Final = 0.05
"""Two messages may arrive closer together than they were sent; a client is given that much."""
SECOND: Final = 1.0 - JITTER_S


class MessageUsage:
    """Counts the messages of one connection within any second."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._times: deque[float] = deque()
        self.most = 0

    def take(self, now: float) -> bool:
        """Count a message at `now` (s). False: it is one too many."""
        self._times.append(now)
        while self._times[0] <= now - SECOND:
            self._times.popleft()
        self.most = max(self.most, len(self._times))
        return self._limit is None or len(self._times) <= self._limit


@dataclass(slots=True)
class SubscribeUsage:
    """Times between two subscriptions: from one address where the venue counts so, else over one connection.

    Attributes:
        interval_s: the least that is allowed; None for any.
        messages: how many subscriptions came.
        least_interval_s: between any two that followed each other; infinite while there were no two.
        violations: those that came too soon.

    """

    interval_s: float | None
    messages: int = 0
    least_interval_s: float = math.inf
    violations: int = 0
    _last: dict[object, float] = field(default_factory=dict)

    def take(self, who: object, now: float) -> bool:
        """Count a subscription by `who` at `now` (s). False: it came too soon."""
        self.messages += 1
        last = self._last.get(who)
        self._last[who] = now
        if last is None:
            return True
        self.least_interval_s = min(self.least_interval_s, now - last)
        if self.interval_s is None or now - last >= self.interval_s - JITTER_S:
            return True
        self.violations += 1
        return False


class WeightUsage:
    """The weight of the requests of each address within a sliding window."""

    def __init__(self, limit: int | None, window_s: float) -> None:
        self._limit = limit
        self._window_s = window_s
        self._taken: defaultdict[str, deque[tuple[float, int]]] = defaultdict(deque)
        self.requests = 0
        self.refused = 0
        self.most = 0

    def take(self, address: str, weight: int, now: float) -> float | None:
        """Count a request at `now` (s). None: it is allowed; else after how many seconds it would be."""
        self.requests += 1
        taken = self._taken[address]
        while taken and taken[0][0] <= now - self._window_s:
            taken.popleft()
        total = weight + self.used(address)
        if self._limit is not None and total > self._limit:
            self.refused += 1
            return max(taken[0][0] + self._window_s - now, 0.0) if taken else self._window_s
        taken.append((now, weight))
        self.most = max(self.most, total)
        return None

    def used(self, address: str) -> int:
        """The weight an address has taken within the window."""
        return sum(weight for _, weight in self._taken[address])


@dataclass(slots=True)
class LimitUsage:
    """What clients took of all limits.

    Attributes:
        subscribe: the pace of subscriptions.
        rest: the weight of requests.
        attempts: websocket connections asked for, by address.
        connections: how many websocket connections were opened in all.
        most_messages_per_s: the most messages that one connection sent within a second.
        message_violations: connections closed for sending too many.
        pongs_missed: connections closed for not answering pings.
        slow_readers: connections dropped for not reading.
        most_streams: the most subscriptions of one connection.
        too_early: requests before the end of a Retry-After.

    """

    subscribe: SubscribeUsage
    rest: WeightUsage
    attempts: WeightUsage
    connections: int = 0
    most_messages_per_s: int = 0
    message_violations: int = 0
    pongs_missed: int = 0
    slow_readers: int = 0
    most_streams: int = 0
    too_early: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and for tests. Intervals in seconds; None where nothing was measured."""
        least = self.subscribe.least_interval_s
        return {
            "subscribe_messages": self.subscribe.messages,
            "subscribe_least_interval_s": least if math.isfinite(least) else None,
            "subscribe_violations": self.subscribe.violations,
            "connections": self.connections,
            "connections_refused": self.attempts.refused,
            "most_messages_per_s": self.most_messages_per_s,
            "message_violations": self.message_violations,
            "pongs_missed": self.pongs_missed,
            "slow_readers": self.slow_readers,
            "most_streams": self.most_streams,
            "rest_requests": self.rest.requests,
            "rest_refused": self.rest.refused,
            "rest_most_weight": self.rest.most,
            "rest_too_early": self.too_early,
        }
