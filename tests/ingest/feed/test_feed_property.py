"""Whatever goes wrong with a part of a venue, in whatever order: nobody is told that a window is whole which is not.

Hypothesis draws the faults and when they come. A failing script is printed as `ashi venue-sim --script` reads it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, note, settings
from hypothesis import strategies as st
from rehearsal import Rehearsal

from ashi_simulator import FAULTS, Step, possible_faults

MARKETS = {
    "bitflyer": ("FX_BTC_JPY", "BTC_JPY", "ETH_JPY", "XRP_JPY"),
    "gmo": ("BTC", "BTC_JPY", "ETH_JPY", "XRP"),
    "binance": ("BTCUSDT", "ETHUSDT", "BNBUSDT", "币安人生USDT"),
    "binance-usdm": ("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT"),
}
EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "4"))
"""Of each venue; each takes about two seconds. `TEST_EXAMPLES=200` looks for longer."""
LONGER = 8.0
"""What is drawn lasts so much longer than in a script for a test in real time."""
AGAIN_S = 5.0
"""A worker that starts while its venue refuses everybody ends with an error, and the platform starts it again."""
RESTART = "restart"
"""The worker is killed and started again: no fault of the venue, but it comes among them."""
UNREAD = {"list_market", "delist_market"}
"""The markets are named, so a new one is not read, and of one that is gone nobody says when it will be known."""
REFUSED_AT_ITS_START = [
    Step("handshake_refused", {"status": 451, "seconds": 17.0}, at_s=0.5),
    Step(RESTART, {}, at_s=5.0),
    Step("subscribe_unanswered", {"seconds": 20.0}, at_s=30.0),
]


def steps(venue: str) -> st.SearchStrategy[Step]:
    """A fault with arguments, and how long after the one before it comes, seconds."""
    names = [*sorted(set(possible_faults(venue, MARKETS[venue])) - UNREAD), RESTART]

    def step(name: str, seed: int, after_s: float) -> Step:
        if name == RESTART:
            return Step(name, {}, at_s=after_s)
        arguments: dict[str, Any] = FAULTS[name].draw(Random(seed))
        if name == "clock":
            arguments["offset_s"] = max(min(arguments["offset_s"], 50.0), -50.0)
        if "seconds" in arguments:
            arguments["seconds"] = round(arguments["seconds"] * LONGER, 2)
        return Step(name, arguments, at_s=after_s)

    return st.builds(step, st.sampled_from(names), st.integers(0, 1000), st.sampled_from([0.5, 5.0, 30.0, 90.0]))


@pytest.mark.slow
@pytest.mark.parametrize("venue", MARKETS)
def test_whatever_fails_the_reader_is_told_the_truth(venue: str) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @example(script=REFUSED_AT_ITS_START, seed=36, rate=8, uneven=False)
    @given(
        script=st.lists(steps(venue), min_size=1, max_size=6),
        seed=st.integers(0, 100),
        rate=st.sampled_from([1, 8]),
        uneven=st.booleans(),
    )
    def check(script: list[Step], seed: int, rate: int, uneven: bool) -> None:
        at_s, lines = 60.0, []
        for step in script:
            at_s += step.at_s or 0.0
            lines.append(json.dumps(asdict(step) | {"at_s": at_s}))
        note(f"{venue}, seed {seed}, rate {rate}, uneven {uneven}\n" + "\n".join(lines))

        async def act(run: Rehearsal) -> None:
            await run.pause(60)
            for step in script:
                await run.pause(step.at_s or 0.0)
                if step.fault == RESTART:
                    await run.kill()
                    await run.start()
                else:
                    run.fault(step.fault, **step.args)
            await run.pause(120)

        run = Rehearsal(
            venue, MARKETS[venue], rate=rate, seed=seed, uneven=uneven, quiet_s=600.0, again_after_s=AGAIN_S
        ).run(act)
        run.assert_told_the_truth()
        run.assert_all_is_known()

    check()
