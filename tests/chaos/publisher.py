"""Publishes the load at a steady rate from a thread of its own, through every outage of the broker."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from aiokafka.errors import KafkaError

from ashi.contracts.errors import BrokerError
from ashi.contracts.topics import TRADES
from ashi.runtime.kafka.connections.clients import make_producer
from ashi.runtime.settings import Settings
from chaos.market import RATE, Message

IN_FLIGHT = 20_000
KIND_HEADER = "chaos"
SOUND = [(KIND_HEADER, b"sound")]
UNSOUND = [(KIND_HEADER, b"unsound")]
STEP_S = 0.02
FLUSH_S = 60.0


class Publisher(threading.Thread):
    """Sends messages until told to stop, and notes which Kafka has acknowledged, and where.

    What could not be sent is sent again, by a new producer: it may then stand in the log twice, and later than it
    was meant to. That is no matter: the truth is the log, read back at the end.
    """

    def __init__(self, settings: Settings, messages: Iterator[Message]) -> None:
        super().__init__(name="publisher", daemon=True)
        self.acknowledged: dict[tuple[int, int], int] = {}
        """(partition, offset) to the hash of the value."""
        self.sent_again = 0
        self.error: BaseException | None = None
        self._settings = settings
        self._messages = messages
        self._told_to_stop = threading.Event()
        self._pending: deque[tuple[Message, asyncio.Future[Any]]] = deque()
        self._failed: deque[Message] = deque()
        self._producer: Any = None

    def stop(self) -> None:
        """Send nothing new, wait until all that was sent is acknowledged, and end. Raises what went wrong."""
        self._told_to_stop.set()
        self.join(FLUSH_S + 30)
        if self.is_alive():
            raise TimeoutError("the publisher does not end")
        if self.error is not None:
            raise self.error

    def run(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            self.error = error

    async def _run(self) -> None:
        began = time.monotonic()
        sent = 0
        while not self._told_to_stop.is_set():
            # An outage is not caught up with: the feed goes on at its rate.
            due = int((time.monotonic() - began) * RATE)
            if due - sent > RATE:
                began += (due - sent) / RATE
                continue
            for _ in range(due - sent):
                await self._send(next(self._messages))
                sent += 1
            await self._collect()
            await asyncio.sleep(STEP_S)
        deadline = time.monotonic() + FLUSH_S
        while self._pending or self._failed:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self._pending)} published records are not acknowledged")
            await self._collect()
            await asyncio.sleep(STEP_S)
        await self._close()

    async def _send(self, message: Message) -> None:
        while len(self._pending) > IN_FLIGHT:
            await self._collect()
            await asyncio.sleep(STEP_S)
        while True:
            try:
                if self._producer is None:
                    self._producer = make_producer(self._settings)
                    await self._producer.start()
                future = await self._producer.send(
                    TRADES,
                    key=message.key,
                    value=message.value,
                    partition=message.partition,
                    headers=SOUND if message.sound else UNSOUND,
                )
            except (KafkaError, BrokerError, OSError):
                await self._close()
                await asyncio.sleep(0.5)
            else:
                self._pending.append((message, future))
                return

    async def _collect(self) -> None:
        """Note what has been acknowledged; send again what has failed."""
        while self._pending and self._pending[0][1].done():
            message, future = self._pending.popleft()
            if future.cancelled() or future.exception() is not None:
                self._failed.append(message)
                continue
            at = future.result()
            if at.offset >= 0:  # unknown where an idempotent producer's repetition was recognized
                self.acknowledged[at.partition, at.offset] = hash(message.value)
        if self._failed:
            await self._close()
            again, self._failed = self._failed, deque()
            self.sent_again += len(again)
            for message in again:
                await self._send(message)

    async def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaError, BrokerError, OSError, TimeoutError):
                async with asyncio.timeout(5):
                    await producer.stop()
