"""What is said of a process that should have ended: where its tasks wait, and where its main thread is."""

from __future__ import annotations

import asyncio
import threading

from ashi.runtime.hanging import what_hangs


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


async def wait_deep_inside() -> None:
    await wait_for_ever()


def test_each_task_is_told_with_the_place_where_it_waits() -> None:
    async def play() -> dict[str, str]:
        waiting = asyncio.create_task(wait_deep_inside(), name="the culprit")
        await asyncio.sleep(0)
        try:
            return await asyncio.to_thread(what_hangs, asyncio.get_running_loop())
        finally:
            waiting.cancel()

    places = asyncio.run(play())
    (culprit,) = [place for name, place in places.items() if name.startswith("the culprit")]
    assert [each.partition(" ")[0] for each in culprit.split(" > ")] == ["wait_deep_inside", "wait_for_ever", "wait"]
    assert "(test_hanging.py:" in culprit
    assert "MainThread" in places


def test_a_main_thread_that_keeps_the_loop_busy_is_told_with_its_place() -> None:
    found: list[dict[str, str]] = []

    async def keep_busy() -> None:
        looking = threading.Thread(target=lambda: found.append(what_hangs(loop)))
        looking.start()
        while looking.is_alive():
            looking.join(0.01)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(keep_busy())
    loop.close()
    assert "keep_busy (test_hanging.py:" in found[0]["MainThread"]
