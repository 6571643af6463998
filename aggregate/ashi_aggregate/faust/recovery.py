"""What restores the tables when a rebalance has given partitions, and what it does when Kafka does not answer.

Faust waits for each answer for as long as a request may take, and then reads that it has run out of time as that it has
been stopped: its recovery ends without a word. Rebalances go on and nobody takes up what they give.
"""

from __future__ import annotations

from typing import Any

from faust.tables.recovery import RebalanceAgain, Recovery
from faust.transport.drivers import aiokafka as driver

from ashi.runtime.kafka.connections.errors import is_unanswered
from ashi.runtime.logs import get_weather_logger
from ashi_aggregate.faust.table import FAUST_LOGGER

_weather = get_weather_logger(__name__)


class PatientRecovery(Recovery):  # type: ignore[misc]  # Faust is not typed
    """As Faust's, but waits until it is answered, a rebalance comes or it is stopped."""

    logger = FAUST_LOGGER

    async def _wait(self, coro: Any, timeout: Any = None) -> None:  # noqa: ARG002, ASYNC109  (Faust's signature)
        """Wait for `coro`. What Kafka was asked in vain is asked again, from the beginning of the recovery on."""
        try:
            await super()._wait(coro)
        except (driver.KafkaError, TimeoutError) as error:
            if not is_unanswered(error):
                raise
            _weather.warning("Kafka does not answer, taking up the state anew", error=repr(error))
            self.signal_recovery_start.set()
            raise RebalanceAgain from error
