"""What is on its way to Kafka: how much at most, what has become of it, and the failure that ends it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from ashi.contracts.errors import BrokerError
from ashi.runtime.kafka.connections.errors import lacks_room, not_taken
from ashi.runtime.retry import Backoff, retry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ashi.runtime.settings import Settings

MAX_IN_FLIGHT: Final = 256
"""Batches and single messages that Kafka has yet to acknowledge; whoever publishes more waits. Bounds the memory."""
ACKNOWLEDGMENT_TIMEOUT_S: Final = 40.0
"""Longest wait for the next acknowledgment, but of a patient publisher. An idempotent producer of aiokafka never gives
up by itself, not even when it is stopped."""
ROOM_CAP_S: Final = 0.5
"""Longest pause before a producer that has no room is tried again; it has waited for room itself, for 40 s."""

_AGAIN: Final = "do it again: a trade that is published twice counts once"


class Deliveries:
    """Batches and single messages on their way to Kafka. Each takes a slot until it is acknowledged or given up.

    Attributes:
        settled: set whenever one is acknowledged or given up. Whoever waits for that clears it first.
        failure: what Kafka did not take, the first of all; None while all is well.

    """

    def __init__(self, settings: Settings, *, patient: bool) -> None:
        """`patient`: wait for Kafka for ever, also while its producer has no room."""
        self.settled = asyncio.Event()
        self.failure: BrokerError | None = None
        self._settings = settings
        self._patient = patient
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._outstanding = 0

    @property
    def full(self) -> bool:
        """Whether the next one has to wait for a slot."""
        return self._slots.locked()

    async def take_slot(self) -> None:
        """Wait for the slot of one that is to be delivered. It ends with `deliver`, or `give_up`.

        Raises:
            BrokerError: Kafka did not take an earlier one, or has acknowledged nothing for too long.

        """
        await self._in_time(self._slots.acquire())
        self._outstanding += 1
        try:
            self.check()
        except BrokerError:
            self.give_up()
            raise

    def give_up(self) -> None:
        """One that has a slot is not delivered."""
        self._outstanding -= 1
        self._slots.release()
        self.settled.set()

    async def deliver(
        self, topic: str, send: Callable[[], Awaitable[asyncio.Future[Any]]], on_acknowledged: Callable[[Any], None]
    ) -> None:
        """Hand one to the producer, and see to it that its acknowledgment is counted or its failure kept.

        Returns when the producer has taken it. `send` gives the future of its acknowledgment, `on_acknowledged` gets
        what that says.
        """
        try:
            future = await self._hand_over(send)
        except BaseException as error:
            self.give_up()
            if not isinstance(error, Exception):
                raise
            self.fail(topic, error)
            return

        def settle(future: asyncio.Future[Any]) -> None:
            if future.cancelled():
                self.fail(topic, None)
            elif (error := future.exception()) is not None:
                self.fail(topic, error)
            else:
                on_acknowledged(future.result())
            self.give_up()

        future.add_done_callback(settle)

    async def wait_for_all(self) -> None:
        """Wait until Kafka has acknowledged everything.

        Raises:
            BrokerError: it did not take something, or has acknowledged nothing for too long.

        """
        while self._outstanding and self.failure is None:
            self.settled.clear()
            await self._in_time(self.settled.wait())
        self.check()

    def fail(self, topic: str, error: BaseException | None) -> None:
        """Something for `topic` was not delivered; None: it was cancelled. Nothing more is to be."""
        if self.failure is None:
            self.failure = not_taken(topic, error or asyncio.CancelledError(), self._settings, then=_AGAIN)
            self.failure.__cause__ = error

    def check(self) -> None:
        """Raise `failure`, if there is one."""
        if self.failure is not None:
            raise self.failure

    async def _hand_over(self, send: Callable[[], Awaitable[asyncio.Future[Any]]]) -> asyncio.Future[Any]:
        try:  # outside of the loop, which costs more than handing over does
            return await send()
        except Exception as error:
            if not (self._patient and lacks_room(error)):
                raise
        return await retry(
            send,
            least_wait_s=lambda error: 0.0 if lacks_room(error) else None,
            backoff=Backoff(cap_s=ROOM_CAP_S),
        )

    async def _in_time(self, waiting: Awaitable[Any]) -> None:
        try:
            async with asyncio.timeout(None if self._patient else ACKNOWLEDGMENT_TIMEOUT_S):
                await waiting
        except TimeoutError:
            raise BrokerError(
                f"Kafka at {self._settings.kafka_bootstrap} has acknowledged nothing for "
                f"{ACKNOWLEDGMENT_TIMEOUT_S:g} s. Look at the broker's log, then {_AGAIN}"
            ) from None
