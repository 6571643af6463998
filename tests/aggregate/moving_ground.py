"""Histories in which the ground moves: logs cut or replaced, rows lost, among crashes, zombies and wrong clocks.

They are those of `simulation`, and in the middle of each one thing happens to what the workers stand on. The judgement:
no trade that stands in `trades` is missing from its candle unless every start of a worker says so, and no more than
five records are sent for each candle.

`python tests/aggregate/moving_ground.py 2000` runs so many seeds of each kind and prints those that fail.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import msgspec
import pytest
from simulation import SECOND, TIMEFRAMES, History, began

from ashi.contracts import Trade
from ashi.contracts.errors import StateError
from ashi.contracts.topics import MARKERS_TABLE, changelog_topic, table_name
from ashi_aggregate.core.codec import decode_marker, decode_row
from ashi_aggregate.partition import marker_key
from kafka_topics.simulated_log import Crash, Worker

MARKERS = changelog_topic(MARKERS_TABLE)
TABLES = [changelog_topic(table_name(timeframe)) for timeframe in TIMEFRAMES]

Kind = Literal["cut", "lost", "expired"]
"""The log is cut or replaced; changelogs lose something while the log is whole; or when it has lost its head."""


class RefusedError(Exception):
    """A worker has not started, or not come to the end of the log, and has said why."""


class Ground(History):
    """The history of a seed, with one accident in it."""

    ends = (Crash, StateError)

    def __init__(self, seed: int, kind: Kind) -> None:
        super().__init__(seed)
        self.kind = kind
        # Drawn by itself, so that a seed's trades and crashes do not depend on it.
        self.accident = random.Random(f"{kind} {seed}")
        self.steps_until = self.accident.randint(1, self.accident.choice([4, 30, 30]))
        self.has_happened = False

    async def judge(self) -> bool:
        """Live through it. Whether workers refuse, then all do; else all candles are right."""
        try:
            await self.live()
        except RefusedError:
            for _ in range(3):
                self.publish()
                worker = self.worker(None)
                with pytest.raises(StateError, match="ashi aggregate reconfigure"):
                    await self._read_all(worker)
            return True
        self.check()
        return False

    async def _read_all(self, worker: Worker) -> None:
        await worker.start()
        await worker.run_to_end()

    async def start(self, worker: Worker) -> None:
        try:
            await super().start(worker)
        except StateError as error:
            raise RefusedError from error

    async def haunt(self, zombie: Worker, undead: list[Worker]) -> None:
        """After the log was cut it only sends what it has read: three faults at once are not among the promises."""
        try:
            if self.kind == "cut" and self.has_happened:
                await zombie.pipeline.checkpoint()
            else:
                await super().haunt(zombie, undead)
        except StateError:
            undead.remove(zombie)

    async def finish(self) -> None:
        """One that stops may have noticed what did no harm; one after the other does not stop for that."""
        for _ in range(4):
            try:
                return await super().finish()
            except StateError as error:
                stopped = error
        raise RefusedError from stopped

    async def happen(self, worker: Worker | None) -> None:
        self.steps_until -= 1
        if self.steps_until >= 0 or self.has_happened:
            if worker is not None and self.accident.random() < 0.1:
                await worker.pipeline.check_log(everything=self.accident.random() < 0.5)
            return
        self.has_happened = True
        if self.kind == "cut":
            await self.cut_or_replace(worker)
        else:
            if self.kind == "expired":
                self.lose_the_head()
            self.lose_rows()

    def expire(self) -> None:
        """Not before the accident."""

    def durable(self, partition: int) -> int:
        """What the marker of a partition says; -1 without one."""
        written = self.broker.topics[MARKERS, partition]
        values = [value for key, value, _ in written if key == marker_key(partition) and value is not None]
        return max((decode_marker(value).durable_offset for value in values), default=-1)

    def applied(self, partition: int) -> int:
        """How far the row that is furthest has come; -1 without one."""
        rows = [value for table in TABLES for _, value, _ in self.broker.topics[table, partition] if value is not None]
        return max((decode_row(value).applied_offset for value in rows), default=-1)

    async def cut_or_replace(self, worker: Worker | None) -> None:
        """An election that is not clean, a restore, or a topic made anew: others take the offsets.

        The log stays whole up to anywhere below a marker or a row, or beyond what anybody has read. In between only
        under the worker that has read furthest, which looks once more: if it is killed before, nothing could tell.
        """
        way = self.accident.choice(["below the marker", "below a row", "above the marker", "beyond", "replaced"])
        looks = {
            partition: worker is not None and worker.next.get(partition) == self.broker.read_up_to[partition]
            for partition in self.broker.trades
        }
        # Of a worker that runs, its own: one that was declared dead may have written another since, and have ended.
        known = {partition: self.durable(partition) for partition in looks}
        if worker is not None:
            states = worker.pipeline._states
            known = {partition: min(at, states[partition].durable_end - 1) for partition, at in known.items()}
        if way == "replaced" and all(looks[partition] or known[partition] >= 0 for partition in looks):
            self.broker.make_anew(f"made anew {self.seed}")
        for partition, log in self.broker.trades.items():
            durable, read = known[partition], self.broker.read_up_to[partition]
            applied = self.applied(partition)
            if way == "below the marker" and durable >= 0:
                self.broker.cut(partition, self.accident.randint(0, durable))
            elif way == "below a row" and worker is None and read == applied + 1 > 0 and self.wrong_clock != "broker":
                self.broker.now_us += SECOND  # an election takes longer than that, and append times go on
                self.broker.cut(partition, self.accident.randint(min(durable + 1, applied), applied))
            elif way == "beyond" and len(log) > read:
                self.broker.cut(partition, self.accident.randint(read, len(log)))
            elif way == "above the marker" and looks[partition] and read > durable + 1:
                self.broker.cut(partition, self.accident.randint(durable + 1, read - 1))
        self._take_stock()
        for _ in range(self.accident.choice([0, 1, 30])):
            self.publish()
        if worker is not None and way in ("above the marker", "replaced"):
            worker.crash_after = None
            if way == "replaced":
                await worker.pipeline.check_log(everything=False)
            for partition, at in worker.next.items():
                await worker.look_before(partition, self.broker.trades[partition][at : at + 1])

    def _take_stock(self) -> None:
        """What stands in the log now is what candles are compared with."""
        self.log = []
        self.appended = {}
        for records in self.broker.trades.values():
            for record in records:
                trade = msgspec.json.decode(record.value or b"", type=Trade)
                self.log.append(trade)
                self.appended[trade.symbol] = max(self.appended.get(trade.symbol, 0), record.timestamp * 1000)

    def lose_the_head(self) -> None:
        """The oldest records of `trades` expire, as far as they have been read."""
        for partition in self.broker.trades:
            self.broker.earliest[partition] = self.accident.randint(0, self.durable(partition) + 1)

    def lose_rows(self) -> None:
        """Changelogs are deleted, emptied, or end earlier than they did: any rows, tables, partitions, markers."""
        everything = [
            at for at, log in self.broker.topics.items() if at[0].endswith("-changelog") and at[1] is not None and log
        ]
        way = self.accident.choice(["topics", "partitions", "keys", "any keys", "tail", "tails", "everything"])
        topics = self.accident.sample([*TABLES, MARKERS], self.accident.randint(1, len(TABLES) + 1))
        keys = self.accident.sample(self.symbols, self.accident.randint(1, len(self.symbols)))
        some = self.accident.sample(everything, min(len(everything), self.accident.randint(1, 3)))
        for topic, partition in everything:
            log = self.broker.topics[topic, partition]
            lost: set[bytes | None] = set()
            end = len(log)
            match way:
                case "everything":
                    end = 0
                case "topics" if topic in topics:
                    end = 0
                case "partitions" if (topic, partition) in some:
                    end = 0
                case "keys" if topic in topics:
                    lost = {symbol.encode() for symbol in keys}
                case "any keys":
                    lost = {key for key in sorted({each[0] or b"" for each in log}) if self.accident.random() < 0.5}
                case "tail" if (topic, partition) in some:
                    end = self.accident.randint(0, len(log))
                case "tails":
                    end = self.accident.randint(0, len(log))
            places = [place for place in range(end) if log[place][0] not in lost]
            times = self.broker.written_at[topic, partition]
            self.broker.topics[topic, partition] = [log[place] for place in places]
            self.broker.written_at[topic, partition] = [times[place] for place in places]

    def is_stale(self, key: Any, content: dict[Any, Any]) -> bool:
        return self.kind == "expired" and began(key, content) < self.edges().get(key[0], 0)


def judge(seed: int, kind: Kind) -> bool:
    """Whether workers refuse at every start after the accident of a seed. Raises WrongCandlesError."""
    return asyncio.run(Ground(seed, kind).judge())


def main() -> int:
    """Run many seeds of each kind."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    failed = 0
    kinds: list[Kind] = ["cut", "lost", "expired"]
    for kind in kinds:
        refused = 0
        for seed in range(seeds):
            try:
                refused += judge(seed, kind)
            except (AssertionError, StateError, pytest.fail.Exception) as error:
                failed += 1
                sys.stdout.write(f"{kind} {seed}: {type(error).__name__} {str(error)[:300]}\n")
        sys.stdout.write(f"{kind}: {seeds} histories, {refused} refused\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
