"""The store, as the chart reads it: a few questions at a time, opened when it is needed and again when it failed."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, TypeVar

from ashi.contracts.errors import StorageError
from ashi.runtime.metrics import chart as metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ashi_sinks.protocol import CandleReader, SeriesSpan

AT_ONCE: Final = 3
"""So many questions are asked of the store at a time: others are served from it as well."""
ANSWER_S: Final = 30.0
"""A question that takes longer is given up."""
SPANS_S: Final = 15.0
"""What series there are, and how far, is asked at most so often."""
AGAIN_S: Final = 1.0
"""And after a failure so often."""
OLD_SPANS_S: Final = 600.0
"""What is older is waited for. What is true of some minutes ago does: from there on the topic is read."""

_T = TypeVar("_T")


class _Opened:
    """A reader, and how many questions it is being asked. One that has failed is closed when the last is answered."""

    def __init__(self, reader: CandleReader, context: AsyncExitStack) -> None:
        self.reader = reader
        self.context = context
        self.questions = 0
        self.has_failed = False


class ChartStore:
    """Reads a store of Ashi's sinks; never makes one, nor writes."""

    def __init__(self, url: str) -> None:
        """Raises UsageError for a URL of no store."""
        # Here, as it brings along the metrics of the sinks, which are none of a process that only reads.
        from ashi_sinks.registry import open_reader, store_name

        self.name = store_name(url)
        self._open_reader = open_reader
        self._url = url
        self._opened: _Opened | None = None
        self._opening = asyncio.Lock()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._spans: tuple[float, Sequence[SeriesSpan], Sequence[SeriesSpan]] | None = None
        self._asking_spans: asyncio.Task[None] | None = None
        self._asked_s = 0.0

    async def ask(self, question: Callable[[CandleReader], Awaitable[_T]]) -> _T:
        """The answer to a question.

        Raises StorageError when there is no store, or none that answers: then it is opened anew for the next question.
        """
        async with self._turns:
            opened: _Opened | None = None
            try:
                async with asyncio.timeout(ANSWER_S):
                    opened = await self._open()
                    opened.questions += 1
                    return await question(opened.reader)
            except (StorageError, OSError, TimeoutError) as error:
                metrics.chart_store_failures.inc()
                if opened is not None:
                    opened.has_failed = True
                if isinstance(error, StorageError):
                    raise
                why = "it does not answer" if isinstance(error, TimeoutError) else str(error)
                raise StorageError(f"the store ({self.name}) cannot be read: {why}") from error
            finally:
                if opened is not None:
                    opened.questions -= 1
                    await self._let_go(opened)

    async def spans(self) -> Sequence[SeriesSpan]:
        """Each series there is, and from when to when: as of some seconds ago, or minutes, if the store takes so long.

        Of candles of trades. Raises StorageError where they were never told.
        """
        return (await self._asked_for_spans())[0]

    async def all_spans(self) -> Sequence[SeriesSpan]:
        """These and the series of which there are only the venue's own candles. Raises as `spans`."""
        ours, venue = await self._asked_for_spans()
        known = {(span.symbol, span.timeframe) for span in ours}
        return [*ours, *(span for span in venue if (span.symbol, span.timeframe) not in known)]

    async def _asked_for_spans(self) -> tuple[Sequence[SeriesSpan], Sequence[SeriesSpan]]:
        now_s = time.monotonic()
        asking = self._asking_spans
        if asking is None or (asking.done() and now_s - self._asked_s > (SPANS_S if self._spans else AGAIN_S)):
            self._asked_s = now_s
            asking = self._asking_spans = asyncio.create_task(self._ask_spans())
        if self._spans is None or now_s - self._spans[0] > OLD_SPANS_S:
            await asyncio.shield(asking)
        assert self._spans is not None  # noqa: S101
        return self._spans[1:]

    async def _ask_spans(self) -> None:
        try:
            self._spans = time.monotonic(), *await self.ask(_spans)
        except StorageError:
            if self._spans is None or time.monotonic() - self._spans[0] > OLD_SPANS_S:
                raise

    async def close(self) -> None:
        """Let go of the store. May be called at any time, and again; the next question opens it."""
        opened, self._opened = self._opened, None
        if self._asking_spans is not None:
            self._asking_spans.cancel()
            await asyncio.gather(self._asking_spans, return_exceptions=True)
        if opened is not None:
            await opened.context.aclose()

    async def _open(self) -> _Opened:
        async with self._opening:
            if self._opened is None:
                context = AsyncExitStack()
                reader = await context.enter_async_context(self._open_reader(self._url))
                self._opened = _Opened(reader, context)
            return self._opened

    async def _let_go(self, opened: _Opened) -> None:
        if opened.has_failed:
            if self._opened is opened:
                self._opened = None
            if not opened.questions:
                await opened.context.aclose()


async def _spans(reader: CandleReader) -> tuple[list[SeriesSpan], list[SeriesSpan]]:
    return await reader.spans(), await reader.venue_spans()
