"""Drives a running stack: replays venue after venue, and waits until the last candle is in the store."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import EXIT_PARTIAL
from ashi_cli.onemachine.children import stop_all
from ashi_cli.onemachine.flow import Progress, StallWatch, read_progress
from ashi_cli.onemachine.stack import STOP_TIMEOUT_S, Stage, StageError, died, stands_still

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ashi.runtime.settings import Settings
    from ashi_cli.onemachine.reporter import Reporter
    from ashi_cli.onemachine.stack import Stack


POLL_INTERVAL_S: Final = 0.3


@dataclass(slots=True)
class Replayed:
    """What the replays have reported: trades that Kafka acknowledged; of each recording cut short, where and why."""

    published: int = 0
    partial: list[str] = field(default_factory=list)


class Driver:
    """Starts the stages and follows the trades through them."""

    def __init__(
        self,
        stack: Stack,
        settings: Settings,
        reporter: Reporter,
        *,
        store: str,
        sink_group: str,
        summaries: Path,
    ) -> None:
        """`summaries` is the folder in which the replays report."""
        self._stack = stack
        self._settings = settings
        self._reporter = reporter
        self._store = store
        self._sink_group = sink_group
        self._summaries = summaries
        self._watch = StallWatch()
        self._replayed = Replayed()
        self._aggregate: Stage | None = None
        self._sink: Stage | None = None
        self._ingest: Stage | None = None

    async def drive(self, recordings: Mapping[str, Sequence[Path]], workers: int) -> Replayed:
        """Run everything until each published trade has been aggregated and each emitted candle is stored.

        The venues come one after another and not at once, so that the offsets of a partition that several of them
        share, and with them the versions of the candles, are the same in every run.

        Raises StageError when a stage dies or stands still, BrokerError when Kafka is out of reach.
        """
        self._start_stages(workers)
        await self._finish(recordings)
        return self._replayed

    async def drive_live(
        self,
        markets: Mapping[str, Sequence[str]],
        workers: int,
        seconds: float | None,
        answered: Callable[[], None],
    ) -> Replayed:
        """Read the venues' markets as they trade, for so many seconds, else until cancelled; then finish what came.

        A cancellation ends the reading and is not raised; `answered` is called then.

        Raises StageError when a stage dies or stands still, BrokerError when Kafka is out of reach.
        """
        self._start_stages(workers)
        feeds = [
            self._stack.start(f"ingest-{venue}", ["ingest", venue, "--", *names]) for venue, names in markets.items()
        ]
        symbols = ", ".join(f"{venue}:{name}" for venue, names in markets.items() for name in names)
        self._reporter.say(f"reading {symbols}; Ctrl-C ends it and shows the candles")
        try:
            async with asyncio.timeout(seconds):
                while True:
                    self._stack.check()
                    self._reporter.update(str(await read_progress(self._settings, self._sink_group)))
                    await asyncio.sleep(POLL_INTERVAL_S)
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101
            task.uncancel()
            answered()
        for feed in feeds:
            self._stack.retire(feed)
        await asyncio.to_thread(stop_all, [feed.process for feed in feeds], STOP_TIMEOUT_S)
        self._replayed.published = (await self._finish({})).published
        return self._replayed

    async def _finish(self, recordings: Mapping[str, Sequence[Path]]) -> Progress:
        """Replay what there is, one venue after the other, and wait until all of it is aggregated and stored."""
        waiting = list(recordings.items())
        while True:
            self._finish_replay()
            if self._ingest is None and waiting:
                self._start_replay(*waiting.pop(0))
            self._stack.check(expected_to_end=self._ingest)
            all_published = self._ingest is None
            progress = await read_progress(self._settings, self._sink_group)
            self._reporter.update(str(progress))
            if all_published and progress.all_aggregated and progress.all_stored:
                return progress
            self._check_stalls(progress)
            await asyncio.sleep(POLL_INTERVAL_S)

    def _start_stages(self, workers: int) -> None:
        for number in range(workers, 0, -1):
            self._aggregate = self._stack.start(f"aggregate-{number}", ["aggregate"])
        self._sink = self._stack.start(f"sink-{self._store}", ["sink", self._store])

    def _start_replay(self, venue: str, paths: Sequence[Path]) -> None:
        summary = self._summary(venue)
        summary.unlink(missing_ok=True)
        arguments = ["ingest", "replay", "--venue", venue, "--summary", str(summary), "--", *map(str, paths)]
        self._ingest = self._stack.start(f"ingest-{venue}", arguments)
        count = f"{len(paths)} recordings" if len(paths) > 1 else "1 recording"
        self._reporter.say(f"replaying {count} of {venue}")

    def _finish_replay(self) -> None:
        """Note what a replay that has ended reports. Raises StageError when it failed."""
        stage = self._ingest
        if stage is None or (status := stage.process.poll()) is None:
            return
        if status not in {0, EXIT_PARTIAL}:
            raise died(stage)
        venue = stage.name.removeprefix("ingest-")
        try:
            summary = json.loads(self._summary(venue).read_bytes())
        except (OSError, ValueError) as error:
            raise StageError(f"stage {stage.name} has left no report ({error}); its log is {stage.log}") from error
        self._replayed.published += summary["trades_published"]
        if summary["partial"] is not None:
            self._replayed.partial.append(summary["partial"])
        self._stack.retire(stage)
        self._ingest = None

    def _summary(self, venue: str) -> Path:
        return self._summaries / f"ingest-{venue}.json"

    def _check_stalls(self, progress: Progress) -> None:
        ingest, watch = self._ingest, self._watch
        # A recording may hold hours of frames that are not trades; its reader then still logs how far it has come.
        mark = (ingest.name, ingest.log.stat().st_size, progress.published) if ingest is not None else None
        checks = (
            ("ingest", ingest, mark, ingest is not None),
            ("aggregate", self._aggregate, progress.aggregated, not progress.all_aggregated),
            ("sink", self._sink, progress.stored, not progress.all_stored),
        )
        for name, stage, now, busy in checks:
            if watch.stalled(name, now, busy=busy) and stage is not None:
                raise stands_still(stage, watch.bound_s)
