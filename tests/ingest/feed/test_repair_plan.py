"""Carrying out a plan of a repair: its requests, its trades, patience with a venue that fails, and its end."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from aiohttp import web
from toy_venue import ToyVenue, as_venue, serving

from ashi.contracts.errors import BrokerError, ContractError
from ashi.runtime.retry import Backoff
from ashi_ingest.feed.repair import repair_plan as repair_module
from ashi_ingest.feed.repair.repair_plan import run_repair
from ashi_ingest.rest.budget import Priority, Urgency
from ashi_ingest.rest.client import RestClient
from ashi_ingest.venues.base import Answer, RepairEnd, Request


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(repair_module, "Backoff", lambda *_: Backoff(0.01, 0.02))


def repaired(plan, answer, *, patience_s=5.0, publish=None):
    """Run a plan against a server that answers as `answer(number)`; gives its end and what was published."""
    published = []

    async def note(trades):
        published.append(trades)

    async def run():
        count = 0

        async def handle(request):
            nonlocal count
            count += 1
            return answer(count)

        app = web.Application()
        app.router.add_get("/{path:.*}", handle)
        async with serving(app) as url, RestClient(as_venue(ToyVenue()), url, None) as rest:
            return await run_repair(rest, plan, publish or note, patience_s)

    return asyncio.run(run()), published


def number_answer(number):
    return web.Response(body=b"[%d]" % number)


class Plan:
    """A plan of two requests, and what became of it."""

    def __init__(self):
        self.answers = []
        self.closed = False

    def run(self):
        try:
            for page in range(2):
                answer = yield Request("/page", {"page": str(page)})
                self.answers.append(answer.body)
                nothing = yield [f"trade {page}"]
                assert nothing is None
            return RepairEnd()
        finally:
            self.closed = True


def test_a_plan_gets_the_answers_it_asks_for_and_its_trades_are_published_in_order():
    plan = Plan()
    end, published = repaired(plan.run(), number_answer)
    assert end == RepairEnd(None)
    assert plan.answers == [b"[1]", b"[2]"]
    assert published == [["trade 0"], ["trade 1"]]


def test_a_plan_may_end_with_what_it_could_not_get():
    def plan():
        yield ["first"]
        return RepairEnd("the venue keeps no more than a day")

    assert repaired(plan(), number_answer) == (RepairEnd("the venue keeps no more than a day"), [["first"]])


def test_a_request_that_fails_is_made_again_and_the_plan_does_not_notice():
    plan = Plan()
    end, published = repaired(plan.run(), lambda n: web.Response(status=500) if n % 3 else number_answer(n))
    assert end == RepairEnd(None)
    assert plan.answers == [b"[3]", b"[6]"]
    assert published == [["trade 0"], ["trade 1"]]


@pytest.mark.parametrize("body", [b"<html>We will be back soon</html>", b"", b"null", b"  \n"])
def test_a_page_that_is_no_answer_is_asked_for_again_and_the_plan_does_not_notice(body):
    plan = Plan()
    end, _ = repaired(plan.run(), lambda n: web.Response(body=body) if n % 3 else number_answer(n))
    assert end == RepairEnd(None)
    assert plan.answers == [b"[3]", b"[6]"]
    end, _ = repaired(Plan().run(), lambda n: web.Response(body=body), patience_s=0.1)
    assert f"the answer to /page is not JSON of this venue; it begins {body.decode().strip()!r}" in (end.reason or "")
    assert not end.final


def test_a_plan_has_its_urgency_and_each_answer_is_told():
    told = []

    async def run():
        asked = []

        class Rest:
            async def get(self, request, urgency):
                asked.append(urgency)
                return Answer(b"[]", 1)

        rest: Any = Rest()

        async def publish(trades):
            told.append("published")

        lost = Urgency(Priority.LOST, 5.0)
        await run_repair(rest, Plan().run(), publish, 1.0, urgency=lost, on_answer=lambda: told.append("answered"))
        assert asked == [lost, lost]

    asyncio.run(run())
    assert told == ["answered", "published"] * 2


def test_a_venue_that_does_not_recover_in_time_ends_the_repair_with_the_reason():
    plan = Plan()
    started_s = time.monotonic()
    end, published = repaired(
        plan.run(), lambda n: number_answer(n) if n == 1 else web.Response(status=503), patience_s=0.3
    )
    assert time.monotonic() - started_s >= 0.25
    assert "HTTP 503" in end.reason
    assert published == [["trade 0"]], "what was found before stays"
    assert plan.closed


def test_progress_renews_the_patience():
    def plan():
        for page in range(6):
            yield Request("/page", {"page": str(page)})
        return RepairEnd()

    last_s = [time.monotonic()]

    def slow(number):
        if time.monotonic() - last_s[0] < 0.2:
            return web.Response(status=500)
        last_s[0] = time.monotonic()
        return number_answer(number)

    started_s = time.monotonic()
    assert repaired(plan(), slow, patience_s=0.8)[0] == RepairEnd(None)
    assert time.monotonic() - started_s > 0.8


def test_a_venue_that_sends_us_away_for_longer_than_the_patience_ends_the_repair_at_once():
    plan = Plan()
    started_s = time.monotonic()
    end, _ = repaired(plan.run(), lambda n: web.Response(status=418, headers={"Retry-After": "600"}), patience_s=60.0)
    assert "HTTP 418" in end.reason
    assert end.retry_after_s == 600
    assert not end.final
    assert time.monotonic() - started_s < 10
    assert plan.closed


def test_a_retry_after_within_the_patience_is_waited_for():
    asked_s = []

    def limited_first(number):
        asked_s.append(time.monotonic())
        return web.Response(status=429, headers={"Retry-After": "1"}) if number == 1 else number_answer(number)

    assert repaired(Plan().run(), limited_first)[0] == RepairEnd(None)
    assert asked_s[1] - asked_s[0] >= 0.98


def test_a_request_that_can_never_succeed_ends_the_repair_after_one_attempt():
    asked = []

    def wrong(number):
        asked.append(number)
        return web.Response(status=400, text="Invalid symbol.")

    plan = Plan()
    end, _ = repaired(plan.run(), wrong)
    assert "Invalid symbol." in end.reason
    assert not end.final, "a later plan may succeed"
    assert asked == [1]
    assert plan.closed


def test_an_answer_that_cannot_be_read_ends_the_repair_with_the_reason():
    def plan():
        answer = yield Request("/page", {})
        raise ContractError(f"field price is missing in {answer.body!r}")

    end, _ = repaired(plan(), number_answer)
    assert "field price is missing in b'[1]'" in end.reason
    assert not end.final


def test_what_publishing_raises_is_raised_and_the_plan_is_closed():
    plan = Plan()

    async def refuse(trades):
        raise ContractError("not the venue's fault")

    with pytest.raises(ContractError, match="not the venue's fault"):
        repaired(plan.run(), number_answer, publish=refuse)
    assert plan.closed

    async def broken(trades):
        raise BrokerError("Kafka is away")

    with pytest.raises(BrokerError):
        repaired(Plan().run(), number_answer, publish=broken)


def test_cancelling_a_repair_closes_its_plan():
    async def run():
        asked = asyncio.Event()

        async def never(request):
            asked.set()
            await asyncio.sleep(30)

        app = web.Application()
        app.router.add_get("/{path:.*}", never)
        plan = Plan()
        async with serving(app) as url, RestClient(as_venue(ToyVenue()), url, None) as rest:
            publish: Any = None  # is never reached
            task = asyncio.create_task(run_repair(rest, plan.run(), publish, 60.0))
            await asyncio.wait_for(asked.wait(), 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert plan.closed

    asyncio.run(run())
