"""Replaying recordings: every frame through the venue's parser, trades to `trades`, the rest where it belongs."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from ashi.contracts.errors import EXIT_PARTIAL, ContractError, RecordingError, UsageError
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics
from ashi.runtime.service import run_service
from ashi_ingest.publish.publisher import Publisher, open_publisher
from ashi_ingest.recording.format import BadLine, Line, preflight, read_recording
from ashi_ingest.recording.repaired import PREFIX, read_repaired
from ashi_ingest.venues.parsing import Parsed, Rejected
from ashi_ingest.venues.registry import VENUES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ashi.runtime.service import Service
    from ashi.runtime.settings import Settings
    from ashi_ingest.venues.parsing import FrameParser


STEP: Final = 500
"""Frames between two looks at whether to stop, and two reports of progress."""
LOG_EVERY_S: Final = 5.0
QUOTED: Final = 80
"""So much of a frame is shown, bytes."""
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
        preflight(path)


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
        # One parser for all: several files are one feed that was written in pieces.
        run = _Replay(VENUES[venue].parser(), publisher, stopping or asyncio.Event(), on_progress)
        for position, path in enumerate(paths):
            if not await run.read(path):
                run.stopped(paths[position + 1 :])
                break
        await publisher.flush()
        run.report()
        return run.result()


class _Replay:
    def __init__(
        self,
        venue: FrameParser,
        publisher: Publisher,
        stopping: asyncio.Event,
        on_progress: Callable[[ReplayResult], None],
    ) -> None:
        self._venue = venue
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
        before = dict(self._frames)
        first: Line | None = None
        try:
            for line in read_recording(path):
                if frames % STEP == 0:
                    self.report()
                    await asyncio.sleep(0)  # lets the producer send, and signals and probes be answered
                    if self._stopping.is_set():
                        self._partial.append(f"{path}: stopped by a signal before line {line.number}")
                        return False
                frames += 1
                if first is None and isinstance(line, Line):
                    first = line
                await self._publish(path, line)
        except RecordingError as error:
            self._partial.append(str(error))
            _log.error("recording read in part", reason=str(error))
        if first is not None and self._frames["skipped"] - before["skipped"] == frames:
            _log.error(
                "the recording holds no trades: record the venue's single trades, as `ashi ingest VENUE MARKET "
                "--record DIR` does; sums of several (such as aggTrade), order books and tickers are none",
                file=str(path),
                frames=frames,
                line=first.number,
                begins=first.frame[:QUOTED].decode(errors="replace"),
            )
        return True

    def stopped(self, unread: Sequence[Path]) -> None:
        """Note the recordings that were not begun."""
        if unread:
            self._partial.append(f"not begun: {', '.join(map(str, unread))}")

    async def _publish(self, path: Path, line: Line | BadLine) -> None:
        if isinstance(line, Line):
            parsed = self._parse(line)
            trades, rejected = parsed.trades, parsed.rejected
        else:
            trades, rejected = [], [Rejected(line.line, line.reason)]
        self._frames["dead" if rejected else "trades" if trades else "skipped"] += 1
        await self._publisher.publish(trades)
        if rejected:
            source = f"recording:{path}:{line.number}"
            for bad in rejected:
                self._rejections += 1
                if self._rejections <= REJECTIONS_LOGGED_PER_FILE:
                    _log.warning("not readable, sent to trades.dead", source=source, reason=bad.reason)
            await self._publisher.reject(rejected, source)

    def _parse(self, line: Line) -> Parsed:
        if not line.frame.startswith(PREFIX):
            return self._venue.parse(line.frame, line.received_at)
        try:
            return Parsed(read_repaired(line.frame, self._venue.name))
        except ContractError as error:
            return Parsed(rejected=[Rejected(line.frame, str(error))])

    def report(self) -> None:
        """Bring metrics and whoever listens up to date."""
        for outcome, count in self._frames.items():
            metrics.frames.labels(self._venue.name, outcome).inc(count - self._reported[outcome])
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
