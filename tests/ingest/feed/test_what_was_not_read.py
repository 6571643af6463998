"""A worker starts and does not know all that was published since REST was compared: that time is asked for."""

from __future__ import annotations

import pytest
from checked_world import VENUES, World, all_once, run, trade_for
from venue_samples import FIRST_MS, Execution

from ashi.contracts.feed import FeedStatus


@pytest.mark.parametrize("read", [8, 200])
@pytest.mark.parametrize("venue", ["bitflyer", "gmo"])
def test_what_was_lost_before_the_trades_that_were_read_is_found_by_time(venue: str, read: int) -> None:
    """A trade a minute beside busy markets: when the worker comes back only the last eight are found in the log."""
    base_ms = FIRST_MS - 6_000_000
    published = [Execution(n, base_ms + n * 60_000, str(5_860_000 + n), taker="buy") for n in range(1, 100)]
    checked_us, last_us = (base_ms + 50 * 60_000) * 1000, (base_ms + 99 * 60_000) * 1000
    status = FeedStatus(
        f"{venue}:BTC_JPY", "connected", checked_us, None, "98", last_us - 60_000_000, last_us + 2_000_000, checked_us
    )

    async def play(world: World) -> None:
        await trade_for(world, 600, 5)
        world.check()
        assert [gap.state for gap in world.topics.gaps.values() if gap.state != "repaired"] == []

    world = run(
        lambda: World(VENUES[venue](), market="BTC_JPY", published=published, lost={60, 61}, status=status, read=read),
        play,
    )
    assert all_once(world)
