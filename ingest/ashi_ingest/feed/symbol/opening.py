"""Since when trades may be missing when a worker starts: by what stands in Kafka, and by what was said last. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.contracts.trade import EARLIEST_US

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ashi.contracts.feed import FeedStatus
    from ashi.contracts.trade import Trade

CLOCK_TOLERANCE_US: Final = 1_000_000
"""The clocks of a venue and ours may be so far apart, and a frame may be on its way so long: gaps by our clock begin
earlier and end later by this, µs."""


def missed_since(resume_point: Sequence[Trade], status: FeedStatus | None, now_us: int) -> int:
    """Since when Kafka may lack trades, µs: by the last one it has, and by what was said last before this start.

    EARLIEST_US when nothing is known of any time.

    What was said of an earlier time still holds: `connected`, up to that heartbeat; `down`, up to when that began; in
    any state, up to `complete_until`, unless Kafka has lost something since.
    """
    since_us = _unknown_since(resume_point[-1] if resume_point else None, status, now_us)
    if status is None or status.complete_until is None or is_cut_off(resume_point, status):
        return since_us
    return max(since_us, min(status.complete_until, now_us))


def is_cut_off(resume_point: Sequence[Trade], status: FeedStatus) -> bool:
    """Whether Kafka has only older trades than one that it had: said last, and covered by `complete_until`."""
    if not resume_point or None in (status.last_traded_at, status.complete_until):
        return False  # where there is none at all, all may have expired
    newest_us = max(trade.traded_at for trade in resume_point)
    return newest_us < (status.last_traded_at or 0) < (status.complete_until or 0)


def _unknown_since(last: Trade | None, status: FeedStatus | None, now_us: int) -> int:
    if last is None and (status is None or (status.complete_until is None and status.last_trade_id is None)):
        return EARLIEST_US  # nothing was ever checked: of all that was before nothing is known
    reported_us = now_us
    if status is not None:
        reported_us = status.updated_at if status.state == "connected" else status.since
    if last is None:
        return min(reported_us, now_us) - CLOCK_TOLERANCE_US
    if status is None or status.state not in {"connected", "down"} or status.last_trade_id != last.trade_id:
        return min(last.traded_at, now_us)  # what was said does not tell what Kafka has
    late_us = max(last.received_at - last.traded_at, CLOCK_TOLERANCE_US)
    return min(max(reported_us - late_us, last.traded_at), now_us)
