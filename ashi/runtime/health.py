"""Whether this process works, for people and orchestrators: `/live`, `/ready` and `/metrics` over HTTP."""

from __future__ import annotations

import errno
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ashi.contracts.errors import UsageError
from ashi.runtime.descriptors import lack_of_descriptors
from ashi.runtime.metrics.declare import REGISTRY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ashi.runtime.settings import Settings


class Health:
    """What the process says of itself.

    It is live while its last beat is younger than `live_bound_s` seconds, and ready when it says so. An idle process
    beats as well, from its poll loop: silence means that it hangs.
    """

    def __init__(self, live_bound_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.live_bound_s = live_bound_s
        self._clock = clock
        self._beat_at = clock()
        self._ready = False
        self._reason = "starting"
        self._hangs: str | None = None
        self._obstacles: dict[str, str] = {}
        self._remarks: dict[str, str] = {}

    def beat(self) -> None:
        """Progress was made, or there was none to make."""
        self._beat_at = self._clock()

    def set_hanging(self, reason: str | None) -> None:
        """Say that a part of the process hangs, whatever else goes on and beats; None: no longer."""
        self._hangs = reason

    def set_ready(self, ready: bool, reason: str) -> None:
        """Say whether work is being done, and why or why not."""
        self._ready, self._reason = ready, reason

    def set_obstacle(self, about: str, reason: str | None) -> None:
        """Say that something is in the way of the work, whoever has said that the process is ready; None: no longer."""
        _put(self._obstacles, about, reason)

    def set_remark(self, about: str, remark: str | None) -> None:
        """Say something that is no obstacle and worth knowing, beside the reason; None: no longer."""
        _put(self._remarks, about, remark)

    def live(self) -> tuple[bool, str]:
        """Whether the process lives, and a sentence about it."""
        if self._hangs is not None:
            return False, self._hangs
        silent_s = self._clock() - self._beat_at
        if silent_s < self.live_bound_s:
            return True, f"last progress {silent_s:.1f} s ago"
        return False, f"no progress for {silent_s:.1f} s; at most {self.live_bound_s:g} s are allowed"

    def ready(self) -> tuple[bool, str]:
        """Whether the process is ready and nothing is in its way, and the reason it gave."""
        if self._ready and self._obstacles:
            return False, "; ".join(self._obstacles.values())
        return self._ready, "; ".join([self._reason, *(self._remarks.values() if self._ready else ())])


def _put(sentences: dict[str, str], about: str, sentence: str | None) -> None:
    if sentence is None:
        sentences.pop(about, None)
    else:
        sentences[about] = sentence


@asynccontextmanager
async def serve(settings: Settings, health: Health) -> AsyncIterator[str]:
    """Serve within the running loop until the block ends. Gives the base URL: `http://127.0.0.1:41235`.

    Raises UsageError when the port or address cannot be had.
    """

    def answer(good: bool, reason: str) -> web.Response:
        return web.Response(text=reason + "\n", status=200 if good else 503)

    async def get_live(_: web.Request) -> web.Response:
        return answer(*health.live())

    async def get_ready(_: web.Request) -> web.Response:
        return answer(*health.ready())

    async def get_metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.add_routes([web.get("/live", get_live), web.get("/ready", get_ready), web.get("/metrics", get_metrics)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, settings.metrics_host, settings.metrics_port).start()
        except OSError as error:
            raise _no_port(settings, error) from None
        if not runner.addresses:  # asyncio takes a socket that it cannot make for an address that is not served here
            raise UsageError(
                f"cannot serve metrics on {settings.metrics_host} port {settings.metrics_port}: "
                + (lack_of_descriptors() or "no socket can be made; correct ASHI_METRICS_HOST")
            )
        host, port = runner.addresses[0][:2]
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def _no_port(settings: Settings, error: OSError) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"port {settings.metrics_port} of {settings.metrics_host} is taken: "
            "write another into ASHI_METRICS_PORT, or 0 for a free one"
        )
    if (lacking := lack_of_descriptors(error)) is not None:
        return UsageError(f"cannot serve metrics on {settings.metrics_host} port {settings.metrics_port}: {lacking}")
    return UsageError(
        f"cannot serve metrics on {settings.metrics_host} port {settings.metrics_port} ({error.strerror}): "
        "correct ASHI_METRICS_HOST or ASHI_METRICS_PORT"
    )
