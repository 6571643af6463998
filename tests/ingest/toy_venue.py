"""A venue made up for the tests of sessions and requests, and its server: real sockets on the loopback."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from aiohttp import WSMsgType, web

from ashi.runtime.metrics import ingest as metrics
from ashi.runtime.retry import Backoff
from ashi_ingest.rate_limiter import RateLimiter
from ashi_ingest.venues.base import Acknowledged, Closing, Limits, Refused, Subscription
from ashi_ingest.websocket.session import Session

LIMITS = Limits(
    websocket_url="",
    rest_url="",
    markets_per_connection=100,
    connect_interval_s=0.0,
    message_interval_s=0.0,
    paced_by="connection",
    acknowledges=True,
    refusal_s=30.0,
    silence_s=30.0,
    ping_interval_s=None,
    lifetime_s=None,
    request_interval_s=0.0,
)


class ToyVenue:
    """Subscribes with `{"id": 1, "markets": ["A"]}`, unsubscribes with `{"id": 2, "unsubscribe": "A"}`.

    It is told `{"ack": 1}`, `{"refused": …}` or `{"closing": …}`.
    """

    name = "toy"

    def __init__(self, *, per_message=1, unsubscribes=True, **limits):
        self.limits = replace(LIMITS, **limits)
        self.per_message = per_message
        self.unsubscribes = unsubscribes
        self.asked_control = []

    def subscriptions(self, markets, first_id):
        size = self.per_message
        groups = [tuple(markets[first : first + size]) for first in range(0, len(markets), size)]
        return [
            Subscription(number, group, json.dumps({"id": number, "markets": group}))
            for number, group in enumerate(groups, first_id)
        ]

    def unsubscription(self, market, request_id):
        return json.dumps({"id": request_id, "unsubscribe": market}) if self.unsubscribes else None

    def control(self, frame):
        self.asked_control.append(frame)
        said = json.loads(frame)
        if "ack" in said:
            return Acknowledged(said["ack"])
        if "refused" in said:
            return Refused(said["refused"], said.get("market"), said.get("reason", "no"), said.get("retryable", False))
        return Closing(said["closing"]) if "closing" in said else None


def as_venue(toy: ToyVenue) -> Any:
    """For what takes a Venue and reads no more of it than this one has."""
    return toy


@dataclass
class Peer:
    """One connection as the server sees it."""

    number: int
    request: web.Request
    socket: web.WebSocketResponse
    received: list = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def markets(self):
        return [market for _, message in self.received for market in message.get("markets", [])]

    async def say(self, **message):
        await self.socket.send_str(json.dumps(message))

    async def raw(self, data):
        """Bytes on the wire as they are."""
        transport = self.request.transport
        assert transport is not None
        transport.write(data)

    def abort(self):
        transport = self.request.transport
        assert transport is not None
        transport.abort()


class Server:
    """Counts everything, and answers as a test tells it to.

    `handshake(number)`: None to accept, or the HTTP response instead. `answer(peer, message)`: what to do with a
    message; by default it is acknowledged.
    """

    def __init__(self):
        self.peers = []
        self.attempts = []
        self.handshake = lambda number: None
        self.answer = self.acknowledge
        self.protocol = {}
        self.url = ""
        self.flood: asyncio.Task[None]
        self._stood_still_s = 0.0

    @property
    def early_s(self):
        """How much closer than agreed two messages may reach the server: the way there is not always equally long.

        It is longer by as much as this process, which is client and server, has stood still on a busy machine.
        """
        return 0.02 + self._stood_still_s

    async def _watch_the_clock(self):
        while True:
            due_s = time.monotonic() + 0.005
            await asyncio.sleep(0.005)
            self._stood_still_s = max(self._stood_still_s, time.monotonic() - due_s)

    async def acknowledge(self, peer, message):
        await peer.say(ack=message["id"])

    async def handle(self, request):
        self.attempts.append((time.monotonic(), request))
        refused = self.handshake(len(self.attempts))
        if refused is not None:
            return refused
        socket = web.WebSocketResponse(**self.protocol)
        await socket.prepare(request)
        peer = Peer(len(self.peers) + 1, request, socket)
        self.peers.append(peer)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    read = json.loads(message.data)
                    peer.received.append((time.monotonic(), read))
                    await self.answer(peer, read)
        except ConnectionError:
            pass
        finally:
            peer.gone.set()
        return socket

    @asynccontextmanager
    async def run(self, port=0):
        app = web.Application()
        app.router.add_get("/{path:.*}", self.handle)
        watching = asyncio.create_task(self._watch_the_clock())
        try:
            async with serving(app, port) as url:
                self.url = url.replace("http", "ws") + "/feed"
                yield self
        finally:
            watching.cancel()


@asynccontextmanager
async def serving(app, port=0):
    """Serve `app` on the loopback; gives its URL."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Handler:
    """Writes down what it is told. A frame is of trades when it has an `n`."""

    def __init__(self):
        self.connections = []
        self.events = []
        self.frames = []
        self.connects = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.hook = None
        self.stopping: asyncio.Event  # of the session that it belongs to, and its task
        self.task: asyncio.Task[None]
        self.session: Session

    async def may_connect(self):
        self.connects += 1
        await self.gate.wait()

    def on_cannot_connect(self, markets, reason, detail):
        self.events.append(("cannot connect", tuple(markets), reason, detail))

    def on_open(self, connection):
        self.connections.append(connection)
        self.events.append(("open", connection))

    def on_subscribed(self, connection, markets):
        self.events.append(("subscribed", connection, tuple(markets)))

    def on_deferred(self, connection, market, reason):
        self.events.append(("deferred", connection, market, reason))

    def on_refused(self, market, reason):
        self.events.append(("refused", market, reason))

    def on_frames(self, connection, frames, received_ns):
        for number, frame in enumerate(frames):
            if not connection._open:  # dropped: those that came with it are not wanted either
                break
            if not self.on_frame(connection, frame, received_ns + number):
                return number
        return len(frames)

    def on_frame(self, connection, frame, received_ns):
        self.frames.append((connection, frame, received_ns))
        if self.hook is not None:
            self.hook(connection, frame)
        return b'"n"' in frame

    def on_silent(self, connection, silent):
        self.events.append(("silent", connection, silent))

    def on_closed(self, connection, reason, detail, last_frame_ns, *, replaced):
        self.events.append(
            (
                "closed",
                SimpleNamespace(
                    connection=connection, reason=reason, detail=detail, last=last_frame_ns, replaced=replaced
                ),
            )
        )

    def of(self, kind):
        return [event[1:] for event in self.events if event[0] == kind]

    @property
    def closed(self):
        return [closed for (closed,) in self.of("closed")]

    @property
    def numbers(self):
        """Those of the frames with an `n`, in the order of their coming."""
        return [json.loads(frame)["n"] for _, frame, _ in self.frames if b'"n"' in frame]


def soon():
    """A backoff that hardly waits."""
    return Backoff(0.01, 0.02)


@asynccontextmanager
async def session(venue, markets, server, *, backoff=soon, url=None, handler=None):
    """A session that runs meanwhile, and has stopped, as by a signal, afterwards; gives its handler and its task."""
    handler = handler or Handler()
    stopping = asyncio.Event()
    handler.session = Session(
        venue,
        markets,
        handler,
        url=url or server.url,
        limiter=RateLimiter(venue.limits.message_interval_s),
        backoff=backoff,
    )
    handler.task, handler.stopping = asyncio.create_task(handler.session.run(stopping)), stopping
    try:
        yield handler
    finally:
        stopping.set()
        async with asyncio.timeout(60):
            await asyncio.gather(handler.task, return_exceptions=True)


async def until(condition, timeout_s=60.0):
    """Wait until `condition()` is true."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.002)


# What tests of sessions note.


class NotedBackoff(Backoff):
    """Waits as long as it may, and `waits` tells how long that was."""

    def __init__(self, waits: list[float], base_s: float, cap_s: float) -> None:
        super().__init__(base_s, cap_s, uniform=lambda low, high: high)
        self._waits = waits

    def next_s(self) -> float:
        self._waits.append(super().next_s())
        return self._waits[-1]


def subscriptions(outcome):
    return metrics.subscriptions.labels("toy", outcome)._value.get()


def status(code, **headers):
    return web.Response(status=code, headers={key.replace("_", "-"): text for key, text in headers.items()})


async def flood(peer, count, first=0):
    for number in range(first, first + count):
        await peer.say(n=number)


def asked(server, number=0):
    """The markets of each message that subscribed over a connection, in the order of their coming."""
    return [message["markets"] for _, message in server.peers[number].received if "markets" in message]


def gaps(times_s):
    return [later_s - earlier_s for earlier_s, later_s in pairwise(sorted(times_s))]
