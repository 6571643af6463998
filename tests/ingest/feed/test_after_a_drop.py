"""How soon many markets are live and whole again after one drop, within the limits: the simulator enforces them."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from rehearsal import Rehearsal

from ashi_ingest.rest.budget import KEPT_FROM_REPAIRS
from ashi_ingest.venues.registry import VENUES

DOCUMENT = Path(__file__).parents[3] / "docs" / "venues.md"
SILENT_S = 2.0
LIVE_S = 10.0
LAG_MS = 400
"""As REST does while all ask it."""


class Drop:
    """All connections go, and what comes of it."""

    def __init__(self, run: Rehearsal) -> None:
        self.run = run
        self.requests = run.sim.limits()["rest_requests"]
        self.published = len(run.kafka.log)
        self.since_us = run.now_us()
        self.begun_s = time.monotonic() + SILENT_S
        self.seen_live: set[str] = set()
        run.fault("rest_lag", milliseconds=LAG_MS, seconds=60.0)
        run.fault("silence", seconds=SILENT_S)

    def took_s(self) -> float:
        """Since the connections broke off, seconds."""
        return time.monotonic() - self.begun_s

    def are_live(self) -> bool:
        """Whether each market has been subscribed to anew and was seen live since."""
        if self.took_s() < 0 or not set(self.run.markets) <= set(self.run.sim.subscribed):
            return False
        for name, symbol in self.run.reader.symbols.items():
            status = symbol.status
            if status is not None and status.state == "connected" and status.since > self.since_us:
                self.seen_live.add(name)
        return len(self.seen_live) == len(self.run.markets)

    def are_whole(self) -> bool:
        """Whether all that was traded in any of them has been published."""
        return all(self.run.is_whole(market)() for market in self.run.markets)

    def late(self) -> int:
        """How many trades were published after later ones of their symbol."""
        return sum(any(name == "ashi.late" for name, _ in record.headers) for record in self.run.kafka.log)

    def asked(self) -> int:
        return self.run.sim.limits()["rest_requests"] - self.requests

    def traded(self) -> int:
        """In how many markets something was traded while no connection was there."""
        until_us = self.since_us + round(1e6 * (SILENT_S + 1))
        return len({trade.symbol for trade in self.run.sim.truth() if self.since_us <= trade.traded_at < until_us})


def dropped(venue: str, amount: int, rate: float, look: Callable[[Drop], Awaitable[None]]) -> Rehearsal:
    markets = tuple(f"M{number}USDT" for number in range(amount))

    async def act(run: Rehearsal) -> None:
        await run.pause(65)
        await run.until(lambda: all(symbol.published for symbol in run.reader.symbols.values()), 600)
        await look(Drop(run))
        await run.pause(20)
        assert run.sim.limits()["rest_refused"] == 0
        limits = VENUES[venue].live(has_key=True).limits
        most = limits.request_window_s / limits.request_interval_s
        assert run.sim.limits()["rest_most_weight"] <= most

    run = Rehearsal(venue, markets, rate=rate, quiet_s=70.0).run(act)
    run.assert_told_the_truth()
    return run


@pytest.mark.slow
@pytest.mark.parametrize("venue", ["binance", "binance-usdm"])
def test_a_hundred_busy_markets_are_live_and_whole_within_ten_seconds(venue: str) -> None:
    async def look(drop: Drop) -> None:
        await drop.run.until(drop.are_live, 60)
        live_s = drop.took_s()
        await drop.run.until(drop.are_whole, 100)
        assert live_s <= LIVE_S
        assert drop.took_s() <= LIVE_S
        assert drop.late() == 0
        assert drop.traded() >= 75

    dropped(venue, 100, 100.0, look)


@pytest.mark.slow
def test_quiet_markets_are_told_whole_by_one_statement_of_the_venue() -> None:
    """Most markets of a venue trade less than once a minute: to ask for each takes more than the budget has."""

    async def look(drop: Drop) -> None:
        await drop.run.until(drop.are_live, 60)
        assert drop.took_s() <= LIVE_S
        await drop.run.pause(90)
        assert drop.asked() <= 2 * drop.traded() + 90 / 20 + 2

    dropped("binance", 200, 10.0, look)


def test_the_table_of_docs_venues_md_is_what_the_limits_come_to() -> None:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    begin = next(place for place, line in enumerate(lines) if line.startswith("| markets that have missed something"))
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[begin : begin + 6])
    amounts = [int(cell.replace(",", "")) for cell in head[1:]]
    for venue, row in zip(("binance", "binance-usdm", "bitflyer"), rows, strict=False):
        limits = VENUES[venue].live(has_key=True).limits
        said = re.search(r"weight (\d+), (\d+) at once", row[0])
        assert said is not None
        weight, at_once = map(int, said.groups())
        allowance = limits.request_window_s / limits.request_interval_s
        assert at_once == int(allowance * (1 - KEPT_FROM_REPAIRS) / weight)
        minutes = [(amount - 1) // at_once * round(limits.request_window_s / 60) for amount in amounts]
        assert row[1:] == [f"{each} min" if each else "at once" for each in minutes]
    interval_s = VENUES["gmo"].live(has_key=False).limits.message_interval_s
    assert rows[3][1:3] == [f"{interval_s * amount:g} s" for amount in amounts[:2]]
