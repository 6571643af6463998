"""What can be wrong at a venue. Whoever runs it sets these; the server asks them at every step."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field


@dataclass
class Faults:
    """Times are of this machine's clock, s; `until` 0 is never."""

    rest_lag_s: float = 0.0
    rest_lag_until: float = 0.0
    rest_lag_differs: bool = False  # from answer to answer, as behind a balancer, up to the above
    rest_mode: str = ""  # a status ("403", "418", "503" …), or "html", "null", "shape", "maintenance", "hang", "empty"
    rest_until: float = 0.0
    handshake_status: int = 0
    handshake_until: float = 0.0
    lose_frames: dict[str, int] = field(default_factory=dict)  # market: how many of its next frames are lost
    ignore_subscription: dict[str, int] = field(default_factory=dict)  # market: how many subscriptions
    refuse_subscription: dict[str, int] = field(default_factory=dict)
    mute_subscription: dict[str, int] = field(default_factory=dict)  # acknowledged, and nothing comes
    late_subscription_s: dict[str, float] = field(default_factory=dict)
    duplicate: float = 0.0  # the chance that a frame comes twice

    def lag(self) -> float:
        if time.time() >= self.rest_lag_until:
            return 0.0
        return random.uniform(0.0, self.rest_lag_s) if self.rest_lag_differs else self.rest_lag_s

    def rest(self) -> str:
        return self.rest_mode if time.time() < self.rest_until else ""

    def handshake(self) -> int:
        return self.handshake_status if time.time() < self.handshake_until else 0

    @staticmethod
    def take(counts: dict[str, int], market: str) -> bool:
        """Whether this one is to fail; it counts down."""
        left = counts.get(market, 0)
        if left:
            counts[market] = left - 1
        return left > 0
