"""Whether Kafka answers this process, asked again and again by a connection of its own: metric `ashi_kafka_up`."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import ApiVersionRequest

from ashi.contracts.errors import BrokerError
from ashi.runtime.kafka.connections.clients import admin_client
from ashi.runtime.metrics.common import kafka_up

if TYPE_CHECKING:
    from aiokafka.admin import AIOKafkaAdminClient

    from ashi.runtime.settings import Settings

LOOK_S: Final = 2.0
"""How often it is asked, seconds."""
ANSWER_S: Final = 3.0
"""An answer that takes longer is none. So Kafka that is lost is told of within `LOOK_S + ANSWER_S`."""
CONNECT_S: Final = 5.0
"""A connection that is not there by then is tried anew: one that a cut link swallowed would wait for half a minute."""

ANEW_S: Final = 60.0
"""So often the connection is made anew: a password that is good no more, or a certificate that was renewed, shows only
then, and the connections of the work may stand for weeks."""


async def tell_whether_kafka_answers(settings: Settings, stage: str) -> None:
    """Ask until cancelled, and set `ashi_kafka_up` of this stage: 1 while any broker answers, else 0.

    It is nobody's task to read or write something every few seconds, in every stage, whatever else they wait for; and
    what their clients hide, as they try again by themselves, must be seen.
    """
    told = kafka_up.labels(stage)
    while True:
        try:
            async with AsyncExitStack() as opened:
                async with asyncio.timeout(CONNECT_S):
                    client = await opened.enter_async_context(admin_client(settings))
                answers = True
                until_s = time.monotonic() + ANEW_S
                while answers and time.monotonic() < until_s:
                    answers = await _any_answers(client)
                    told.set(answers)
                    await asyncio.sleep(LOOK_S)
        except (BrokerError, KafkaError, OSError, TimeoutError):
            told.set(0)
            await asyncio.sleep(LOOK_S)


async def _any_answers(client: AIOKafkaAdminClient) -> bool:
    """Whether one of the brokers answers in time. All are asked: one that stands still says nothing of the others."""
    nodes = [broker.nodeId for broker in client._client.cluster.brokers()]
    asked = {asyncio.create_task(_answers(client._client, node)) for node in nodes}
    try:
        left = asked
        async with asyncio.timeout(ANSWER_S):
            while left:
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                if any(each.result() for each in done):
                    return True
    except TimeoutError:
        # What a process that had other work has not come to read yet is an answer as well.
        await asyncio.sleep(0)
        return any(each.result() for each in asked if each.done())
    finally:
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    return False


async def _answers(client: Any, node: int) -> bool:
    try:
        await client.send(node, ApiVersionRequest())
    except (KafkaError, OSError, TimeoutError):
        return False
    return True
