"""What is wrong with a deployment, by snapshots of it."""

from __future__ import annotations

from typing import Any

import pytest
from operations_samples import DAY, MINUTE, NOW, S, aggregate, ground, lag, sink, snapshot, status, strategy

from ashi.contracts.timeframe import format_time
from ashi_operations.problem import Problem
from ashi_operations.status.feeds import FeedTable
from ashi_operations.status.judge import problems_of
from ashi_operations.status.snapshot import Delay, Feeds, Gap, Gaps, Newest, Snapshot


def judged(seen: Snapshot, **more: Any) -> list[Problem]:
    return problems_of(seen, ground(**more))


def only(seen: Snapshot, **more: Any) -> Problem:
    [problem] = judged(seen, **more)
    return problem


def feeds(*statuses: Any) -> Feeds:
    table = FeedTable()
    for each in statuses:
        table.take(each)
    return table.view(NOW)


def test_of_a_deployment_that_is_well_there_is_nothing_to_say() -> None:
    assert judged(snapshot()) == []
    nothing_known = snapshot(
        feeds=None, stages=None, stores=None, delay=None, candles=None, gaps=None, dead_letters=None
    )
    assert judged(nothing_known) == [], "what is not known is no problem of the deployment"


def test_partitions_without_a_leader_and_missing_topics_are_told() -> None:
    problem = only(snapshot(partitions_without_leader=["trades/3", "trades/5"]))
    assert (problem.level, problem.code, problem.about) == ("error", "kafka.leaderless", "trades")
    assert "2 partitions" in problem.text
    assert "trades/3, trades/5" in problem.text
    assert problem.command == "kafka-topics --bootstrap-server kafka:9092 --describe --unavailable-partitions"
    problem = only(snapshot(), missing_topics=["staging.signals"])
    assert (problem.code, problem.command) == ("topics.missing", "ashi topics create")
    assert "staging.signals" in problem.text


@pytest.mark.parametrize(("ahead", "words"), [(90.0, "90 s ahead of"), (-3.0, "3.0 s behind")])
def test_a_clock_that_is_off_is_told(ahead: float, words: str) -> None:
    problem = only(snapshot(clock_ahead=ahead))
    assert (problem.level, problem.code) == ("warning", "clock.off")
    assert words in problem.text


def test_feeds_that_are_down_are_told_by_venue_with_the_latest() -> None:
    down = [
        status(f"binance:M{number}", "down", since=NOW - number * S, reason=f"because {number}") for number in range(3)
    ]
    seen = feeds(*down, status("binance:FINE"), status("gmo:BTC", "silent", reason="no trade for 5 min"))
    first, second = judged(snapshot(feeds=seen))
    assert (first.level, first.code, first.about) == ("error", "feeds.down", "binance")
    assert first.text.startswith("3 feeds of binance are not connected, binance:M0 since ")
    assert first.text.endswith(": because 0")
    assert first.command == "ashi status --once --symbol binance:M0"
    assert (second.level, second.code, second.about) == ("warning", "feeds.silent", "gmo")


@pytest.mark.parametrize(
    ("age_s", "level"), [(61, "error"), (3_600, "error"), (2 * 86_400, "warning"), (8 * 86_400, None)]
)
def test_a_feed_that_nothing_is_heard_of_is_missed_until_it_has_been_given_up(age_s: float, level: str | None) -> None:
    seen = feeds(status("binance:BTCUSDT", "down", age_s=age_s, reason="the worker has been stopped"))
    found = judged(snapshot(feeds=seen, candles=None))
    if level is None:
        assert found == []
        return
    [problem] = found
    assert (problem.level, problem.code) == (level, "feeds.stale")
    assert problem.text.endswith("): binance:BTCUSDT was down: the worker has been stopped")
    assert problem.command == "ashi ingest binance BTCUSDT"


def test_many_stale_feeds_of_a_venue_are_one_problem_with_one_command() -> None:
    seen = feeds(*(status(f"binance:M{number}", age_s=100) for number in range(10_000)))
    problem = only(snapshot(feeds=seen, candles=None))
    assert problem.text.startswith("nothing is heard of 10,000 feeds of binance since")
    assert problem.command == "ashi ingest binance --all"
    assert len(seen.troubled) + seen.troubled_left_out == 10_000


def test_no_venue_hides_behind_the_many_feeds_of_another() -> None:
    many = [status(f"binance:M{number}", "down", reason="away") for number in range(1_000)]
    seen = feeds(*many, *(status(f"gmo:M{number}", "down", since=1, reason="gone") for number in range(50)))
    assert len(seen.troubled) == 100
    assert {problem.about: problem.text.split(" are ")[0] for problem in judged(snapshot(feeds=seen))} == {
        "binance": "1,000 feeds of binance",
        "gmo": "50 feeds of gmo",
    }


def test_a_feed_that_is_connected_and_has_a_reason_is_told() -> None:
    problem = only(snapshot(feeds=feeds(status(reason="another worker reads it unasked"))))
    assert (problem.level, problem.code) == ("warning", "feeds.remark")
    assert "1 feed of binance is connected, but another worker reads it unasked" in problem.text


@pytest.mark.parametrize(
    ("group", "level", "code", "command"),
    [
        (aggregate(members=0, state="Empty", unowned=[0, 1, 2, 3]), "error", "group.absent", "ashi aggregate"),
        (sink(members=0, state="Empty", unowned=[0, 1, 2, 3]), "error", "group.absent", "ashi sink sqlite"),
        (aggregate(state="PreparingRebalance", unowned=[0, 1, 2, 3]), "warning", "group.rebalancing", "ashi status"),
        (aggregate(unowned=[2]), "error", "group.unowned", "ashi aggregate"),
        (aggregate(members=6), "warning", "group.idle", "ashi topics check"),
        (aggregate(lags=[lag(lost=[1])]), "error", "group.lost", "ashi aggregate reconfigure"),
        (sink(lags=[lag("candles", lost=[1])]), "error", "group.lost", "ashi sink sqlite --from-beginning"),
        (aggregate(lags=[lag(records=900, seconds=40.0)]), "warning", "group.lag", "ashi aggregate"),
        (aggregate(members=4, lags=[lag(records=900, seconds=400.0)]), "error", "group.lag", "ashi doctor"),
    ],
)
def test_groups_without_workers_with_idle_ones_and_behind_are_told(
    group: Any, level: str, code: str, command: str
) -> None:
    seen = snapshot(stages=[group]) if group.stage == "aggregate" else snapshot(stores=[group])
    problem = only(seen)
    assert (problem.level, problem.code, problem.about, problem.command) == (level, code, group.group, command)


def test_a_group_that_nobody_works_in_may_be_forgotten_by_its_name_in_kafka() -> None:
    group = sink(members=0, state="Empty", unowned=[0], lags=[lag("candles", records=7, seconds=9.0)])
    problem = only(snapshot(stores=[group]), prefix="staging.")
    assert "7 records wait" in problem.text
    assert (
        "kafka-consumer-groups --bootstrap-server kafka:9092 --delete --group staging.ashi-sink-sqlite" in problem.text
    )


@pytest.mark.parametrize(("behind_s", "told"), [(0.0, False), (29.0, False), (40.0, True), (4_000.0, True)])
def test_a_strategy_is_told_by_its_lag_alone_as_its_process_is_in_no_group(behind_s: float, told: bool) -> None:
    running = strategy(lags=[lag("candles", records=7 if behind_s else 0, seconds=behind_s)])
    found = judged(snapshot(stages=[running]), prefix="staging.")
    assert [(problem.level, problem.code) for problem in found] == [("warning", "group.lag")] * told
    for problem in found:
        assert "and 7 records behind: no process runs it, or it does not keep up" in problem.text
        assert "--delete --group staging.ashi-strategy-ma_cross-1f)" in problem.text
        assert problem.command == "ashi strategy run --help"


def test_a_group_of_which_nothing_is_known_is_no_problem() -> None:
    assert judged(snapshot(stages=[aggregate(members=None, lags=None)])) == []


def test_candles_that_come_late_are_told() -> None:
    problem = only(snapshot(delay=Delay(100, 180.0, 0.3, 7.5, 9.0)))
    assert (problem.level, problem.code) == ("warning", "candles.late")
    assert "7.5 s" in problem.text


@pytest.mark.parametrize(("behind_s", "missing"), [(0, False), (60, False), (91, False), (93, True), (600, True)])
def test_candles_that_do_not_come_though_trades_do_are_told(behind_s: int, missing: bool) -> None:
    """The window after the newest candle might have closed a minute after it, and two seconds for late trades."""
    close = (NOW // MINUTE) * MINUTE
    at = close + behind_s * S
    newest = Newest("1m", "binance:BTCUSDT", close - MINUTE, close, "1", close + S, 1)
    seen = snapshot(at=at, candles=[newest], feeds=_traded_until(at))
    assert [problem.code for problem in judged(seen)] == ["candles.missing"] * missing


def _traded_until(at: int) -> Feeds:
    table = FeedTable()
    table.take(status(last_traded_at=at, updated_at=at))
    return table.view(at)


def test_candles_are_not_missed_where_nothing_was_traded() -> None:
    close = (NOW // MINUTE) * MINUTE
    newest = Newest("1m", "binance:BTCUSDT", close - MINUTE, close, "1", close + S, 1)
    assert judged(snapshot(at=close + DAY, candles=[newest], feeds=_traded_until(close + S))) == []


def test_gaps_that_are_lost_come_with_the_command_that_fetches_them_again() -> None:
    gap = Gap("gmo:BTC_JPY", "lost", NOW - 500 * S + 1, NOW - 400 * S - 1, "REST does not answer")
    problem = only(snapshot(gaps=Gaps(86_400.0, 0, 3, 0, 0, [gap])))
    assert (problem.level, problem.code, problem.about) == ("warning", "gaps.lost", "gmo:BTC_JPY")
    assert problem.text.startswith("3 gaps of the last 24 h could not be repaired")
    assert problem.command.startswith("ashi ingest backfill gmo BTC_JPY --from 2026-09-21T")
    begin, end = problem.command.split(" --from ")[1].split(" --to ")
    assert begin < end


def test_candles_that_lack_late_trades_come_with_the_command_that_takes_them_in() -> None:
    late = Gap("gmo:BTC_JPY", "lost", NOW - 500 * S + 1, NOW - 440 * S, "trades came too late for their candles")
    problem = only(snapshot(gaps=Gaps(86_400.0, 0, 0, 0, 0, [], late=2, latest_late=late)))
    assert (problem.level, problem.code, problem.about) == ("warning", "gaps.late", "gmo:BTC_JPY")
    assert problem.text.startswith("2 gaps of the last 24 h in which candles lack trades that came too late")
    day = NOW // DAY * DAY
    begin, end = problem.command.removeprefix("ashi rebuild --from ").split(" --to ")
    assert end == f"{format_time(day + DAY).replace(' ', 'T')}Z --symbol gmo:BTC_JPY"
    assert begin == f"{format_time(day).replace(' ', 'T')}Z"


def test_a_gap_that_stays_open_is_told_and_one_that_has_just_opened_is_not() -> None:
    fresh = Gap("gmo:BTC", "open", NOW - 60 * S, NOW - 50 * S, "the connection broke")
    assert judged(snapshot(gaps=Gaps(86_400.0, 1, 0, 0, 0, [fresh]))) == []
    old = Gap("gmo:BTC", "open", NOW - 3_600 * S, NOW - 3_500 * S, "the connection broke")
    problem = only(snapshot(gaps=Gaps(86_400.0, 2, 0, 0, 0, [fresh, old])))
    assert (problem.code, problem.about) == ("gaps.open", "gmo:BTC")


def test_letters_of_the_last_hour_are_told_with_the_topics_name_in_kafka() -> None:
    problem = only(snapshot(dead_letters={"trades.dead": 3, "trades.late": 0, "candles.dead": 0}), prefix="staging.")
    assert (problem.level, problem.code, problem.about) == ("warning", "letters", "trades.dead")
    assert "--topic staging.trades.dead" in problem.command


def test_errors_come_before_warnings() -> None:
    found = judged(snapshot(clock_ahead=9.0, stages=[aggregate(members=0, unowned=[0])]))
    assert [problem.level for problem in found] == ["error", "warning"]
