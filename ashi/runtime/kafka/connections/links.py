"""Links to brokers that are cut, or whose host is gone: nobody tells a client, and no packet comes back.

The library waits for an answer as long as a request may take, 40 s and in places 60 s, though other brokers have led
the partitions since the ninth second. And it makes one connection at a time, so that one which comes to nothing holds
up those to brokers that answer. (Found by `make rehearsal FAULTS=link-cut`: candles waited for 36 s.)
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from aiokafka.client import ConnectionGroup

if TYPE_CHECKING:
    from aiokafka.client import AIOKafkaClient

CONNECT_S: Final = 10.0
"""A connection, with TLS and login, that is not made by then is tried anew; Java's clients wait as long (KIP-601)."""
AGAIN_S: Final = 2.0
"""The same, of the first connection after one that has ended: a broker that runs takes it at once, and one whose link
is cut must not keep a client from asking the others who leads now. The next attempts may take `CONNECT_S`."""
SILENCE_S: Final = 10.0
"""When nothing has come back of a host for so long, not even that it has received, its connection is given up. The
brokers take nine seconds themselves to give up on one, so that a client that asks then hears who leads now. A broker
that stands still is not meant: its host receives for it."""
PROBE_AFTER_S: Final = 4
PROBE_EVERY_S: Final = 2
"""Where nothing is on the way, as while a fetch waits for records, the host is asked whether it is there."""

_log = logging.getLogger("aiokafka")  # where it says so of connections that are refused


class _NoLock:
    """In place of the library's lock, under which it makes one connection at a time."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        return None


def watch_links(client: AIOKafkaClient) -> None:
    """Let a client, not yet started, notice within `SILENCE_S` that a broker's host is out of reach.

    Its connections are given up then, and requests in flight fail as they do when a broker ends. Connections to several
    brokers are made at the same time, each within `CONNECT_S`, or `AGAIN_S`.
    """
    connect = client._get_conn
    locks: defaultdict[tuple[Any, Any], asyncio.Lock] = defaultdict(asyncio.Lock)
    failed_at: dict[tuple[Any, Any], float] = {}
    client._get_conn_lock_value = _NoLock()

    async def connect_in_time(node_id: Any, *, group: Any = ConnectionGroup.DEFAULT, **options: Any) -> Any:
        key = (node_id, group)
        known = client._conns.get(key)
        if known is not None and known.connected():
            return known
        asked_at = time.monotonic()
        async with locks[key]:
            if failed_at.get(key, asked_at) > asked_at:
                return None  # whoever asked before us has just heard so
            try:
                async with asyncio.timeout(CONNECT_S if client._conns.get(key) is None else AGAIN_S):
                    connection = await connect(node_id, group=group, **options)
            except TimeoutError:
                _log.warning("No connection to node %s in time, asking others who leads", node_id)
                client.force_metadata_update()  # as the library does where it is refused
                connection = None
            if connection is None:
                failed_at[key] = time.monotonic()
            else:
                _give_up_on_silence(connection)
            return connection

    client._get_conn = connect_in_time


def _give_up_on_silence(connection: Any) -> None:
    writer = connection._writer
    sock = None if writer is None else writer.get_extra_info("socket")
    if sock is None:  # it has ended in the meantime
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_USER_TIMEOUT", int(SILENCE_S * 1_000)),  # of what was sent; Linux counts probes by it too
        ("TCP_KEEPIDLE", PROBE_AFTER_S),
        ("TCP_KEEPALIVE", PROBE_AFTER_S),  # macOS's name of the same
        ("TCP_KEEPINTVL", PROBE_EVERY_S),
        ("TCP_KEEPCNT", int(SILENCE_S - PROBE_AFTER_S) // PROBE_EVERY_S),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
