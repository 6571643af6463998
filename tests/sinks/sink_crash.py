"""A sink worker that is killed after it has written and before it has committed: `sink_crash.py URL < messages`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from sink_fakes import MemoryLog

from ashi.runtime.service import Service
from ashi.runtime.settings import Settings
from ashi_sinks.registry import make_streams
from ashi_sinks.worker import SinkWorker
from ashi_sinks.writer import Writer


class KillingLog(MemoryLog):
    async def commit(self, offsets):
        os.kill(os.getpid(), signal.SIGKILL)


async def main(url: str, messages: list[bytes]) -> None:
    service = Service("sink-crash", Settings.from_environment({}))
    streams = make_streams(url)
    await streams.open()
    writer = Writer(service, streams.name, streams.what)
    log = KillingLog(messages)
    await SinkWorker(
        log, streams, writer, service, group="a-group", batch_size=len(messages), batch_interval_s=60
    ).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.stdin.buffer.read().splitlines()))
