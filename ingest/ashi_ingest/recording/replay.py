"""Replaying recordings: every frame through the venue's parser, trades to `trades`, the rest where it belongs."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from ashi.contracts.errors import EXIT_PARTIAL, RecordingError, UsageError
from ashi.runtime.kafka.connections.clients import compression_of
from ashi.runtime.logs import get_logger
from ashi.runtime.metrics import ingest as metrics
from ashi.runtime.service import run_service
from ashi_ingest.known_venues import venue_named
from ashi_ingest.publish.encoded_trades import encode_received, encode_trades
from ashi_ingest.publish.publisher import Publisher, open_publisher
from ashi_ingest.recording.check import check_recording
from ashi_ingest.recording.format import parse_line, read_lines
from ashi_ingest.recording.read_ahead import ReadAhead
from ashi_ingest.recording.read_progress import ReadProgress
from ashi_ingest.recording.reader import RecordingReader
from ashi_ingest.recording.trade_files import NO_OPTIONS, FileOptions, TradeFileReader, is_trade_file
from ashi_ingest.venues.parsing import Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from ashi.contracts.trade import Trade
    from ashi.runtime.kafka.producing.encoded_batches import EncodedBatch
    from ashi.runtime.service import Service
    from ashi.runtime.settings import Settings
    from ashi_ingest.recording.reader import Reading
    from ashi_ingest.recording.trade_files import FileBatch

STEP_BYTES: Final = 512 * 1024
"""Of lines that are read together, some 2,500 frames, between two looks at whether to stop: many to a batch of each
partition, and few enough to stay in the processor's cache."""
LOG_EVERY_S: Final = 5.0
REJECTIONS_LOGGED_PER_FILE: Final = 10
"""More are only counted: all of them are in `trades.dead`."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a replay did, or has done so far.

    Attributes:
        frames: frames read, or rows of files of trades (lines that are not blank).
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


def run_replay(
    settings: Settings,
    venue: str,
    paths: Sequence[Path],
    *,
    summary: Path | None = None,
    options: FileOptions = NO_OPTIONS,
) -> int:
    """The command `ashi ingest replay`: replay `paths` in order and give the exit status.

    0 when everything was read, 3 when a recording could be read only in part or the replay was stopped by a signal;
    what was read is published either way. With `summary`, the result is written to that file as one
    JSON object: the fields of `ReplayResult`, and `seconds`. `options`: of files of trades.

    Raises:
        UsageError: the venue is not known or a path is no recording; nothing was started.

    """
    check_replay(venue, paths, options)
    results: list[ReplayResult] = []

    async def main(service: Service) -> None:
        started = time.monotonic()
        logged = started
        progress = ReadProgress(sum(path.stat().st_size for path in paths), started)

        def on_progress(result: ReplayResult) -> None:
            nonlocal logged
            service.health.beat()
            if time.monotonic() - logged >= LOG_EVERY_S:
                logged = time.monotonic()
                how_far = progress.told(logged)
                _log.info(
                    "replaying", venue=venue, frames=result.frames, trades_published=result.trades_published, **how_far
                )

        service.health.set_ready(True, "replaying")
        result = await replay(
            settings,
            venue,
            paths,
            stopping=service.stopping,
            on_progress=on_progress,
            options=options,
            on_read=progress.add,
        )
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


def check_replay(venue: str, paths: Sequence[Path], options: FileOptions = NO_OPTIONS) -> None:
    """Raise UsageError if `venue` is not known, no path is given or one of them is no recording."""
    venue_named(venue)
    if not paths:
        raise UsageError("no recording is given: name at least one file")
    for path in paths:
        check_recording(venue, path, options)


async def replay(
    settings: Settings,
    venue: str,
    paths: Sequence[Path],
    *,
    stopping: asyncio.Event | None = None,
    on_progress: Callable[[ReplayResult], None] = lambda _: None,
    options: FileOptions = NO_OPTIONS,
    on_read: Callable[[int], None] = lambda _: None,
) -> ReplayResult:
    """Publish what the recordings of one venue hold, in order, and wait until Kafka has all of it.

    A recording that is cut or damaged is published up to that place, and those after it follow. `on_progress` is
    called every few hundred frames, `on_read`, from any thread, with the bytes of files that have been read since.

    Raises:
        BrokerError: Kafka cannot be reached, lacks a topic, or did not take a message.

    """
    async with open_publisher(settings, venue) as publisher:
        run = _Replay(
            RecordingReader(venue),
            publisher,
            stopping or asyncio.Event(),
            on_progress,
            on_read=on_read,
            options=options,
            compression=compression_of(settings),
        )
        for position, path in enumerate(paths):
            if not await run.read(path):
                run.stopped(paths[position + 1 :])
                break
        else:
            # The reader is ahead of what is published: where that was stopped, what waits is not next.
            await run.finish()
        await publisher.flush()
        run.report()
        return run.result()


class _Step(NamedTuple):
    """Lines that are published together.

    Attributes:
        number: of the first.
        encoded: their trades as batches, each with its partition; a frame has one.
        readings: or what each of them gave, by its number.

    """

    number: int
    encoded: Sequence[tuple[int, EncodedBatch]]
    readings: Sequence[tuple[int, Reading]]


class _Replay:
    def __init__(
        self,
        reader: RecordingReader,
        publisher: Publisher,
        stopping: asyncio.Event,
        on_progress: Callable[[ReplayResult], None],
        *,
        on_read: Callable[[int], None] = lambda _: None,
        options: FileOptions = NO_OPTIONS,
        compression: str | None = None,
    ) -> None:
        self._reader = reader
        self._on_read = on_read
        self._options = options
        self._compression = compression
        self._files: TradeFileReader | None = None
        self._publisher = publisher
        self._stopping = stopping
        self._on_progress = on_progress
        self._frames = {"trades": 0, "skipped": 0, "dead": 0}
        self._reported = dict(self._frames)
        self._rejections = 0
        self._partial: list[str] = []

    async def read(self, path: Path) -> bool:
        """Publish one recording, or note why its rest could not be. False: a signal stopped it."""
        try:
            if is_trade_file(path):
                return await self._read_rows(path)
            return await self._read_frames(path)
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

    async def _read_frames(self, path: Path) -> bool:
        """Publish a recording. While some lines are on their way, a thread reads the next ones."""
        steps = ReadAhead(self._steps(path))
        try:
            async for step in steps:
                if self._stopping.is_set():
                    self._partial.append(f"{path}: stopped by a signal before line {step.number}")
                    return False
                for partition, batch in step.encoded:
                    await self._publisher.publish_encoded(partition, batch)
                    self._frames["trades"] += batch.record_count()
                await self._publish(path, step.readings)
                self.report()
        finally:
            await steps.close()
        return True

    def _steps(self, path: Path) -> Generator[_Step]:
        reader = self._reader
        for number, texts in _together(read_lines(path, self._on_read)):
            columns = reader.read_columns(texts)
            if columns is not None:
                yield _Step(number, [*encode_received(columns, self._publisher.partition_of, self._compression)], [])
            else:
                lines = [parse_line(place, text) for place, text in enumerate(texts, number) if text.strip()]
                yield _Step(number, [], [(line.number, reader.read(line)) for line in lines])

    async def _publish(self, path: Path, readings: Sequence[tuple[int, Reading]]) -> None:
        trades: list[Trade] = []
        for number, (parsed, passed) in readings:
            trades += passed
            rejected = parsed.rejected
            self._frames["dead" if rejected else "trades" if parsed.trades else "skipped"] += 1
            if rejected:
                await self._publisher.publish(trades)
                trades = []
                await self._reject(rejected, f"recording:{path}:{number}")
        await self._publisher.publish(trades)

    async def _reject(self, rejected: Sequence[Rejected], source: str) -> None:
        for bad in rejected:
            self._rejections += 1
            if self._rejections <= REJECTIONS_LOGGED_PER_FILE:
                _log.warning("not readable, sent to trades.dead", source=source, reason=bad.reason)
        await self._publisher.reject(rejected, source)

    async def _read_rows(self, path: Path) -> bool:
        """Publish a file of trades. While some rows are on their way, a thread reads and encodes the next ones."""
        self._files = self._files or TradeFileReader(self._reader.venue, self._options)
        parts = ReadAhead(_encoded(self._files.read(path, self._on_read), self._compression))
        try:
            async for part in parts:
                if self._stopping.is_set():
                    self._partial.append(f"{path}: stopped by a signal; give the file again to have all of it")
                    return False
                await self._publish_rows(*part)
                self.report()
        finally:
            await parts.close()  # and with it the file
        return True

    async def _publish_rows(self, batch: FileBatch, encoded: Iterable[EncodedBatch]) -> None:
        symbol = None
        if batch.columns is not None:
            symbol = batch.columns.symbol
            partition = self._publisher.partition_of(symbol)
            for part in encoded:
                await self._publisher.publish_encoded(partition, part)
        for bad in batch.bad:
            await self._reject([Rejected(bad.row, bad.reason, symbol)], f"recording:{bad.place}")
        self._frames["dead"] += len(batch.bad)
        self._frames["trades"] += batch.rows - len(batch.bad)

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


def _together(lines: Iterable[tuple[int, list[bytes]]]) -> Iterator[tuple[int, list[bytes]]]:
    """As many as are read together. Raises as they do, when all before that have been given."""
    first, step, size = 1, list[bytes](), 0
    try:
        for number, texts in lines:
            first = first if step else number
            step += texts
            size += sum(map(len, texts))
            if size >= STEP_BYTES:
                yield first, step
                step, size = [], 0
    except RecordingError:
        if step:
            yield first, step
        raise
    if step:
        yield first, step


def _encoded(
    batches: Iterable[FileBatch], compression: str | None
) -> Generator[tuple[FileBatch, Sequence[EncodedBatch]]]:
    for batch in batches:
        yield batch, [] if batch.columns is None else list(encode_trades(batch.columns, compression))


def _write_summary(path: Path, summary: dict[str, object]) -> None:
    try:
        path.write_text(json.dumps(summary) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the summary cannot be written to {path}: {error.strerror or error}") from error
