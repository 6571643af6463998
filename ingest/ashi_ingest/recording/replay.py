"""Replaying recordings: every frame through the venue's parser, trades to `trades`, the rest where it belongs."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import EXIT_PARTIAL, RecordingError, UsageError
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics
from ashi.runtime.service import run_service
from ashi_ingest.publish.publisher import Publisher, open_publisher
from ashi_ingest.recording.check import check_recording
from ashi_ingest.recording.format import read_recording
from ashi_ingest.recording.reader import RecordingReader
from ashi_ingest.venues.registry import VENUES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ashi.runtime.service import Service
    from ashi.runtime.settings import Settings
    from ashi_ingest.recording.format import BadLine, Line

STEP: Final = 500
"""Frames between two looks at whether to stop, and two reports of progress."""
LOG_EVERY_S: Final = 5.0
REJECTIONS_LOGGED_PER_FILE: Final = 10
"""More are only counted: all of them are in `trades.dead`."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a replay did, or has done so far.

    Attributes:
        frames: frames read (lines that are not blank).
        skipped: those that carry no trades, such as order books.
        trades_published: trades that Kafka has acknowledged.
        trades_dead: what could not be read (frames, executions of a frame, lines), acknowledged in `trades.dead`.
        partial: None when everything was read; else what was not, and why.

    """

    frames: int = 0
    skipped: int = 0
    trades_published: int = 0
    trades_dead: int = 0
    partial: str | None = None


def run_replay(settings: Settings, venue: str, paths: Sequence[Path], *, summary: Path | None = None) -> int:
    """The command `ashi ingest replay`: replay `paths` in order and give the exit status.

    0 when everything was read, 3 when a recording could be read only in part or the replay was stopped by a signal;
    what was read is published either way. With `summary`, the result is written to that file as one
    JSON object: the fields of `ReplayResult`, and `seconds`.

    Raises:
        UsageError: the venue is not known or a path is no recording; nothing was started.

    """
    check_replay(venue, paths)
    results: list[ReplayResult] = []

    async def main(service: Service) -> None:
        started = time.monotonic()
        logged = started

        def on_progress(result: ReplayResult) -> None:
            nonlocal logged
            service.health.beat()
            if time.monotonic() - logged >= LOG_EVERY_S:
                logged = time.monotonic()
                _log.info("replaying", venue=venue, frames=result.frames, trades_published=result.trades_published)

        service.health.set_ready(True, "replaying")
        result = await replay(settings, venue, paths, stopping=service.stopping, on_progress=on_progress)
        results.append(result)
        seconds = round(time.monotonic() - started, 3)
        log = _log.info if result.partial is None else _log.error
        log("replayed", venue=venue, **asdict(result), seconds=seconds)
        if summary is not None:
            _write_summary(summary, asdict(result) | {"seconds": seconds})

    status = run_service("ingest", settings, main)
    if status == 0 and any(result.partial is not None for result in results):
        return EXIT_PARTIAL
    return status


def check_replay(venue: str, paths: Sequence[Path]) -> None:
    """Raise UsageError if `venue` is not known, no path is given or one of them is no recording."""
    if venue not in VENUES:
        raise UsageError(f"there is no venue {venue!r}: write one of {', '.join(VENUES)}")
    if not paths:
        raise UsageError("no recording is given: name at least one file")
    for path in paths:
        check_recording(venue, path)


async def replay(
    settings: Settings,
    venue: str,
    paths: Sequence[Path],
    *,
    stopping: asyncio.Event | None = None,
    on_progress: Callable[[ReplayResult], None] = lambda _: None,
) -> ReplayResult:
    """Publish what the recordings of one venue hold, in order, and wait until Kafka has all of it.

    A recording that is cut or damaged is published up to that place, and those after it follow. `on_progress` is
    called every few hundred frames.

    Raises:
        BrokerError: Kafka cannot be reached, lacks a topic, or did not take a message.

    """
    async with open_publisher(settings, venue) as publisher:
        run = _Replay(RecordingReader(venue), publisher, stopping or asyncio.Event(), on_progress)
        for position, path in enumerate(paths):
            if not await run.read(path):
                run.stopped(paths[position + 1 :])
                break
        await run.finish()
        await publisher.flush()
        run.report()
        return run.result()


class _Replay:
    def __init__(
        self,
        reader: RecordingReader,
        publisher: Publisher,
        stopping: asyncio.Event,
        on_progress: Callable[[ReplayResult], None],
    ) -> None:
        self._reader = reader
        self._publisher = publisher
        self._stopping = stopping
        self._on_progress = on_progress
        self._frames = {"trades": 0, "skipped": 0, "dead": 0}
        self._reported = dict(self._frames)
        self._rejections = 0
        self._partial: list[str] = []

    async def read(self, path: Path) -> bool:
        """Publish one recording, or note why its rest could not be. False: a signal stopped it."""
        frames = 0
        try:
            for line in read_recording(path):
                if frames % STEP == 0:
                    self.report()
                    await asyncio.sleep(0)  # lets the producer send, and signals and probes be answered
                    if self._stopping.is_set():
                        self._partial.append(f"{path}: stopped by a signal before line {line.number}")
                        return False
                frames += 1
                await self._publish(path, line)
        except RecordingError as error:
            self._partial.append(str(error))
            _log.error("recording read in part", reason=str(error))
        return True

    async def finish(self) -> None:
        """Publish what still waits for a repair whose end was not recorded, or not read."""
        await self._publisher.publish(self._reader.finish())

    def stopped(self, unread: Sequence[Path]) -> None:
        """Note the recordings that were not begun."""
        if unread:
            self._partial.append(f"not begun: {', '.join(map(str, unread))}")

    async def _publish(self, path: Path, line: Line | BadLine) -> None:
        parsed, trades = self._reader.read(line)
        rejected = parsed.rejected
        self._frames["dead" if rejected else "trades" if parsed.trades else "skipped"] += 1
        await self._publisher.publish(trades)
        if rejected:
            source = f"recording:{path}:{line.number}"
            for bad in rejected:
                self._rejections += 1
                if self._rejections <= REJECTIONS_LOGGED_PER_FILE:
                    _log.warning("not readable, sent to trades.dead", source=source, reason=bad.reason)
            await self._publisher.reject(rejected, source)

    def report(self) -> None:
        """Bring metrics and whoever listens up to date."""
        for outcome, count in self._frames.items():
            metrics.frames.labels(self._reader.venue, outcome).inc(count - self._reported[outcome])
        self._reported = dict(self._frames)
        self._on_progress(self.result())

    def result(self) -> ReplayResult:
        """What has been done so far."""
        return ReplayResult(
            frames=sum(self._frames.values()),
            skipped=self._frames["skipped"],
            trades_published=self._publisher.published,
            trades_dead=self._publisher.dead,
            partial="; ".join(self._partial) or None,
        )


def _write_summary(path: Path, summary: dict[str, object]) -> None:
    try:
        path.write_text(json.dumps(summary) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the summary cannot be written to {path}: {error.strerror or error}") from error
