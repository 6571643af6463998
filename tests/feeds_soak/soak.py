"""One run: a broker, four simulated venues, a worker process of each, faults drawn from a seed, and the judgement."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

from feed_reader import ALLOWED_WASTE, FeedReader, ReadSymbol, missing_at
from topics_follower import TopicsFollower, following

from ashi.contracts.topics import topic_specs
from ashi.runtime.kafka.cluster.topics import create_topics
from ashi.runtime.settings import Settings
from ashi_cli.onemachine.broker import Broker
from ashi_cli.onemachine.children import spawn, stop_all
from ashi_simulator import FAULTS, RULES, Simulator, possible_faults

RATES = {"bitflyer": 20.0, "gmo": 6.0, "binance": 40.0, "binance-usdm": 20.0}
NAMES = {"bitflyer": "M{}_JPY", "gmo": "M{}_JPY", "binance": "M{}USDT", "binance-usdm": "M{}USDT"}
FAULT_EVERY_S = 10.0
LONGER = 6
"""What is drawn lasts so much longer than in a script for a test."""
NOT_HERE = {"list_market", "delist_market"}
"""Markets are named here, so a new one is not read, and one that is gone says nothing more."""
CALM_S = 60.0
SETTLE_S = 900.0
STOP_S = 30.0
KEY = {"ASHI_BINANCE_API_KEY": "a-key-the-simulator-takes"}


@dataclass
class Verdict:
    """What a run has to show: a report in Markdown, and what is wrong."""

    report: str
    wrong: list[str] = field(default_factory=list)


class Soak:
    """The state of one run."""

    def __init__(self, directory: Path, seed: int, minutes: float, markets: int, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._seed = seed
        self._minutes = minutes
        self._say = say
        self._random = random.Random(seed)
        each = max(markets // len(RATES), 1)
        self._markets = {venue: [NAMES[venue].format(number) for number in range(each)] for venue in RATES}
        self._markets["bitflyer"][0] = "FX_BTC_JPY"
        self._simulators: dict[str, Simulator] = {}
        self._workers: dict[str, Popen[bytes]] = {}
        self._done: Counter[str] = Counter()
        self._recovered_s: dict[str, list[float]] = {}
        self._deck: dict[str, list[str]] = {}

    async def run(self) -> Verdict:
        """Run it all. What breaks the run itself is raised."""
        broker = Broker(self._directory)
        broker.start(child=True, fresh=True)
        try:
            settings = Settings.from_environment({"ASHI_KAFKA_BOOTSTRAP": broker.bootstrap})
            await create_topics(settings, topic_specs(settings.partitions, settings.timeframes))
            async with AsyncExitStack() as stack:
                for venue, markets in self._markets.items():
                    self._simulators[venue] = await stack.enter_async_context(
                        Simulator(
                            venue, markets, seed=self._seed, rate=RATES[venue], bursts=True, uneven=True,
                            rules=RULES[venue],
                        )
                    )  # fmt: skip
                reader = FeedReader(
                    {
                        f"{venue}:{market}": simulator.truth_reader(market)
                        for venue, simulator in self._simulators.items()
                        for market in self._markets[venue]
                    },
                    looks_at_once=False,
                )
                follower = await stack.enter_async_context(following(settings, reader))
                try:
                    return await self._play(settings, reader, follower)
                finally:
                    stop_all(list(self._workers.values()), STOP_S)
        finally:
            broker.stop()

    async def _play(self, settings: Settings, reader: FeedReader, follower: TopicsFollower) -> Verdict:
        for venue in RATES:
            self._start(venue, settings)
        for venue, simulator in self._simulators.items():
            await simulator.wait_subscribed()
            simulator.start_market()
            self._say(f"{venue} trades")
        async with asyncio.TaskGroup() as group:
            following = group.create_task(follower.follow())
            began_us = time.time_ns() // 1000
            await self._suffer(settings)
            self._say("no more faults")
            await asyncio.sleep(CALM_S)
            for simulator in self._simulators.values():
                await simulator.stop_market()
            ended_us = time.time_ns() // 1000
            quiet_s = await self._settle(reader, ended_us)
            following.cancel()
        await follower.catch_up()
        verdict = self._judge(reader, follower, (began_us, ended_us), quiet_s)
        verdict.wrong += _unknown(reader, ended_us)
        for venue, worker in self._workers.items():
            worker.send_signal(signal.SIGTERM)
            status = await asyncio.to_thread(worker.wait, STOP_S)
            if status:
                verdict.wrong.append(f"the worker of {venue} ended with status {status}")
        return verdict

    def _start(self, venue: str, settings: Settings) -> None:
        simulator = self._simulators[venue]
        environment = {
            "ASHI_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "ASHI_METRICS_PORT": "0",
            "ASHI_LOG_FORMAT": "json",
            "ASHI_WEBSOCKET_URL": simulator.websocket_url,
            "ASHI_REST_URL": simulator.rest_url,
            **KEY,
        }
        with (self._directory / f"{venue}.log").open("ab") as log:
            self._workers[venue] = spawn(
                [sys.executable, "-m", "ashi_cli.main", "ingest", venue, *self._markets[venue]],
                env=os.environ | environment,
                stdout=log,
                stderr=log,
            )

    async def _suffer(self, settings: Settings) -> None:
        """A fault of some venue every ten seconds; now and then its worker is killed and started again."""
        until = time.monotonic() + self._minutes * 60
        await asyncio.sleep(FAULT_EVERY_S)
        while time.monotonic() < until:
            venue = self._random.choice(list(RATES))
            name, arguments = self._draw(venue)
            self._done[name] += 1
            if name == "kill":
                self._workers[venue].kill()
                self._workers[venue].wait(STOP_S)
                self._start(venue, settings)
            else:
                self._simulators[venue].fault(name, **arguments)
            with (self._directory / "faults.log").open("a") as log:
                log.write(f"{time.time():.3f} {venue} {name} {arguments}\n")
            for each, worker in self._workers.items():
                if worker.poll() is not None:
                    raise RuntimeError(
                        f"the worker of {each} has ended with {worker.returncode}: see {self._directory}"
                    )
            await asyncio.sleep(FAULT_EVERY_S)

    def _draw(self, venue: str) -> tuple[str, dict[str, Any]]:
        """Every fault comes before one comes again."""
        deck = self._deck.setdefault(venue, [])
        if not deck:
            deck += [*possible_faults(venue, self._markets[venue]), "kill"]
            self._random.shuffle(deck)
        name = deck.pop()
        if name in NOT_HERE:
            return self._draw(venue)
        if name == "kill":
            return name, {}
        arguments = FAULTS[name].draw(self._random)
        if "seconds" in arguments:
            arguments["seconds"] *= LONGER
        return name, arguments

    async def _settle(self, reader: FeedReader, ended_us: int) -> float:
        """Wait until nothing is missing, no gap is open and all is known, and give how long that took, seconds."""
        begun = time.monotonic()
        while time.monotonic() - begun < SETTLE_S and not all(  # noqa: ASYNC110
            _is_settled(symbol, ended_us) for symbol in reader.symbols.values()
        ):
            await asyncio.sleep(1.0)
        return time.monotonic() - begun

    def _judge(self, reader: FeedReader, follower: TopicsFollower, traded: tuple[int, int], quiet_s: float) -> Verdict:
        began_us, ended_us = traded
        lasted_us = ended_us - began_us
        verdict = Verdict("")
        for check in (
            reader.assert_never_misled,
            lambda: reader.assert_truth(missing=[name for name, symbol in reader.symbols.items() if symbol.missing()]),
            lambda: reader.assert_exact_gaps(lasted_us),
            lambda: _assert_missing_is_told(reader, ended_us),
        ):
            try:
                check()
            except AssertionError as error:
                verdict.wrong.append(str(error))
        verdict.report = self._report(reader, follower, lasted_us, quiet_s)
        return verdict

    def _report(self, reader: FeedReader, follower: TopicsFollower, lasted_us: int, quiet_s: float) -> str:
        rows = [
            "| venue | markets | trades | missing | gaps repaired | lost | time in gaps for nothing | REST requests |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for venue, simulator in self._simulators.items():
            symbols = [symbol for name, symbol in reader.symbols.items() if name.startswith(venue + ":")]
            states = Counter(gap.state for symbol in symbols for gap in symbol.later_gaps())
            wasted = sum(symbol.wasted_us() for symbol in symbols) / (lasted_us * len(symbols))
            rows.append(
                f"| {venue} | {len(symbols)} | {sum(len(symbol.truth) for symbol in symbols):,} "
                f"| {sum(len(symbol.missing()) for symbol in symbols)} | {states['repaired']} | {states['lost']} "
                f"| {wasted:.2%} (at most {ALLOWED_WASTE:.0%}) | {simulator.limits()['rest_requests']:,} |"
            )
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self._done.items()))
        return "\n".join(
            [
                *rows,
                "",
                f"{self._minutes:g} minutes, seed {self._seed}, {sum(self._done.values())} faults: {faults}.",
                f"The reader looked {follower.looks:,} times and was misled about {reader.misled_trades} trades.",
                f"After the last trade all was settled within {quiet_s:.0f} s.",
            ]
        )


def _is_settled(symbol: ReadSymbol, ended_us: int) -> bool:
    # A market that trades no more is silent, and its connection renewed, again and again: gaps that are of no interest.
    gaps = [gap.state for gap in symbol.later_gaps() if gap.from_time < ended_us]
    is_known = symbol.complete_until is not None and symbol.complete_until >= ended_us
    return is_known and set(gaps) <= {"repaired"} and not symbol.missing()


def _unknown(reader: FeedReader, ended_us: int) -> list[str]:
    """Sentences about symbols of which it is not said, long after the last trade, that all is known."""
    return [
        f"{name}: complete_until {symbol.complete_until} is not after the end of trading, {ended_us}"
        for name, symbol in reader.symbols.items()
        if symbol.complete_until is None or symbol.complete_until < ended_us
    ]


def _assert_missing_is_told(reader: FeedReader, ended_us: int) -> None:
    """Each gap but that of a first start is repaired, as the venues still list everything; what is missing is told."""
    for name, symbol in reader.symbols.items():
        left = [gap for gap in symbol.later_gaps() if gap.state != "repaired" and gap.from_time < ended_us]
        assert not left, f"{name}: still open or lost: {left[:2]}"
        for trade, happened_us in symbol.unpublished.values():
            at = missing_at(trade, happened_us)
            assert any(
                gap.state == "lost" and gap.from_time <= at < (gap.to_time or at + 1) for gap in symbol.gaps.values()
            ), f"{name}: {trade} is missing, and no gap says so"
