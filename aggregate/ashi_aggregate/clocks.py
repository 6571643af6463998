"""What time it is: on this machine, and at the brokers, beyond whose clocks no window of a quiet market may close."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import aggregate as metrics

STEP_US: Final = 1_000_000
"""A difference between two clocks that changes by more than this has stepped; NTP slews what is less."""
REMEMBERED_US: Final = 60_000_000
"""A broker's clock is what its append times of the last one to two minutes say, so that one set back is followed."""

_log = get_logger(__name__)


class SteadyClock:
    """The wall clock of this machine, but for its steps back: through those it goes on with the time since boot.

    It follows a step ahead: whether that is right the broker's clock says.
    """

    def __init__(self, wall_us: Callable[[], int], since_boot_s: Callable[[], float]) -> None:
        self._wall_us = wall_us
        self._since_boot_s = since_boot_s
        self._wall_at = self._now = wall_us()
        self._boot_at = self.since_boot_us()

    def since_boot_us(self) -> int:
        """The time that nobody sets, µs since some moment."""
        return int(self._since_boot_s() * 1_000_000)

    def wall_us(self) -> int:
        """What the wall clock says, as it is, µs since the epoch."""
        return self._wall_us()

    def now_us(self) -> int:
        """The time, µs since the epoch. A step of the wall clock since the last call is logged."""
        wall, boot = self._wall_us(), self.since_boot_us()
        passed = boot - self._boot_at
        step = wall - self._wall_at - passed
        if abs(step) > STEP_US:
            _log.warning("this machine's clock has been set while the worker runs", step_s=round(step / 1e6, 1))
        self._now = max(self._now + passed, wall)
        self._wall_at, self._boot_at = wall, boot
        return self._now


class BrokerClock:
    """A broker's clock as far as its append times tell it; in between it goes on with the time since boot.

    It is never ahead of the broker's, unless that is set back, and behind by as long as records take to come here. One
    for each partition: brokers have clocks of their own, and what one of them says must not count for another's.
    """

    def __init__(self) -> None:
        self._ahead: int | None = None
        self._ahead_before: int | None = None
        self._since = 0

    def saw(self, appended_us: int, since_boot_us: int) -> None:
        """An append time (µs since the epoch), seen at this time since boot (µs)."""
        ahead = appended_us - since_boot_us
        if self._ahead is None or since_boot_us - self._since > REMEMBERED_US:
            self._ahead_before, self._ahead, self._since = self._ahead, ahead, since_boot_us
        else:
            self._ahead = max(self._ahead, ahead)

    def now_us(self, since_boot_us: int) -> int | None:
        """What the clock says (µs since the epoch) at this time since boot (µs); None before it was seen."""
        known = [ahead for ahead in (self._ahead, self._ahead_before) if ahead is not None]
        return since_boot_us + max(known) if known else None


class ClockReport:
    """Says how far this machine's clock is from the brokers': always in the metric, in the log once for each step."""

    def __init__(self) -> None:
        self._said: dict[int, int] = {}

    def report(self, partition: int, offset_us: int) -> None:
        """The machine's clock less that of the partition's broker, µs."""
        metrics.clock_offset_seconds.labels(partition).set(offset_us / 1e6)
        if abs(offset_us - self._said.get(partition, 0)) <= STEP_US:
            return
        known = any(abs(offset_us - said) <= STEP_US for said in self._said.values())
        self._said[partition] = offset_us
        if known:  # of another partition: one step is one line
            return
        if abs(offset_us) <= STEP_US:
            _log.info("this machine's clock agrees with Kafka's again", partition=partition)
        else:
            _log.warning(
                "this machine's clock is not Kafka's: quiet windows close by the earlier of the two; correct the "
                "one that is wrong",
                ahead_s=round(offset_us / 1e6, 1),
                partition=partition,
            )
