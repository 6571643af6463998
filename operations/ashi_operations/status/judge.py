"""What is wrong with a deployment by a snapshot of it, and the command to run next: pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ashi.contracts.symbol import split_symbol
from ashi.contracts.timeframe import SECOND_US, format_time
from ashi.contracts.topics import CANDLES_DEAD, TRADES_DEAD, TRADES_LATE
from ashi.runtime.words import counted
from ashi_operations.problem import Level, Problem, worst_first
from ashi_operations.status.feeds import LAST_WORDS
from ashi_operations.words import named, span, span_us

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ashi_operations.status.snapshot import Feed, Gap, Group, Snapshot

STALE_ERROR_US: Final = 86_400 * SECOND_US
"""A feed that was heard of within so long is missed; later somebody has perhaps given it up."""
STALE_TOLD_US: Final = 7 * STALE_ERROR_US
LAG_WARNING_S: Final = 30.0
LAG_ERROR_S: Final = 300.0
DELAY_WARNING_S: Final = 5.0
"""Of 99 % of the candles; the objective is a second."""
BEHIND_S: Final = 30.0
"""Candles that are so much later than they might be are missing."""
OPEN_GAP_US: Final = 600 * SECOND_US
CLOCK_S: Final = 2.0
_MOST_MARKETS: Final = 5


@dataclass(frozen=True, slots=True)
class Ground:
    """What the judgment needs to know besides.

    Attributes:
        bootstrap: where Kafka is, for commands.
        prefix: `ASHI_TOPIC_PREFIX`.
        lateness_us: how long windows wait; `finest_us` the length of the shortest ones, 0 where it is not known.
        missing_topics: topics that the deployment needs and that are not there, by their names in Kafka.

    """

    bootstrap: str
    prefix: str
    lateness_us: int
    finest_us: int
    missing_topics: Sequence[str] = ()

    def tool(self, name: str) -> str:
        """One of Kafka's own commands, with where Kafka is."""
        return f"{name} --bootstrap-server {self.bootstrap}"


def problems_of(snapshot: Snapshot, ground: Ground) -> list[Problem]:
    """All that is wrong, the worse first."""
    return worst_first(
        [
            *_kafka(snapshot, ground),
            *_feeds(snapshot),
            *_groups(snapshot, ground),
            *_candles(snapshot, ground),
            *_gaps(snapshot),
            *_letters(snapshot, ground),
        ]
    )


def unreachable(reason: str) -> Problem:
    """What there is to say where Kafka does not answer."""
    return Problem("error", "kafka.unreachable", "", reason, "ashi doctor")


def _kafka(snapshot: Snapshot, ground: Ground) -> Iterator[Problem]:
    if snapshot.partitions_without_leader:
        names = snapshot.partitions_without_leader
        yield Problem(
            "error",
            "kafka.leaderless",
            names[0].rpartition("/")[0],
            f"{counted(len(names), 'partition')} can be neither read nor written, as nobody leads: {named(names)}",
            f"{ground.tool('kafka-topics')} --describe --unavailable-partitions",
        )
    if ground.missing_topics:
        missing = list(ground.missing_topics)
        text = f"topics are missing: {named(missing)}"
        yield Problem("error", "topics.missing", missing[0], text, "ashi topics create")
    ahead = snapshot.clock_ahead
    if ahead is not None and not -CLOCK_S < ahead < CLOCK_S:
        which = "ahead of" if ahead > 0 else "behind"
        yield Problem(
            "warning",
            "clock.off",
            "",
            f"the clock of this machine is {span(abs(ahead))} {which} the brokers': times shown here are off by that",
            "timedatectl timesync-status",
        )


def _feeds(snapshot: Snapshot) -> Iterator[Problem]:
    if snapshot.feeds is None:
        return
    grouped: defaultdict[tuple[str, str], list[Feed]] = defaultdict(list)
    for feed in snapshot.feeds.troubled:
        grouped[split_symbol(feed.symbol)[0], feed.state].append(feed)
    totals = {venue.venue: venue.states for venue in snapshot.feeds.venues}
    for (venue, state), feeds in grouped.items():
        latest = max(feeds, key=lambda feed: feed.since)
        # Not all that are in trouble are told one by one.
        count = len(feeds) if state == "connected" else max(len(feeds), totals.get(venue, {}).get(latest.state, 0))
        which = f"{counted(count, 'feed')} of {venue}"
        look = f"ashi status --once --symbol {latest.symbol}"
        age_us = snapshot.at - latest.since
        words = f"{which} {'is' if count == 1 else 'are'}"
        if state == "stale":
            if age_us > STALE_TOLD_US:
                continue
            level: Level = "error" if age_us <= STALE_ERROR_US else "warning"
            since = f"{format_time(latest.since)} ({span_us(age_us)})"
            was = (latest.reason or "").removeprefix(LAST_WORDS)
            heard = f"nothing is heard of {which} since {since}: {latest.symbol} {was}"
            yield Problem(level, "feeds.stale", venue, heard, _ingest(venue, feeds, count))
        elif state == "down":
            down = f"{words} not connected, {latest.symbol} since {format_time(latest.since)}: {latest.reason}"
            yield Problem("error", "feeds.down", venue, down, look)
        elif state == "silent":
            silent = f"{words} suspiciously silent, {latest.symbol} since {format_time(latest.since)}"
            yield Problem("warning", "feeds.silent", venue, silent + _because(latest), look)
        elif state == "connected" and any(feed.reason is not None for feed in feeds):
            told = next(feed for feed in feeds if feed.reason is not None)
            yield Problem("warning", "feeds.remark", venue, f"{words} connected, but {told.reason}", look)


def _because(feed: Feed) -> str:
    return "" if feed.reason is None else f": {feed.reason}"


def _ingest(venue: str, feeds: Sequence[Feed], count: int) -> str:
    if count > _MOST_MARKETS or count > len(feeds):
        return f"ashi ingest {venue} --all"
    return f"ashi ingest {venue} {' '.join(sorted(split_symbol(feed.symbol)[1] for feed in feeds))}"


def worker_command(group: Group) -> str:
    """What starts a worker of a group."""
    if group.stage == "aggregate":
        return "ashi aggregate"
    if group.stage == "strategy":
        return "ashi strategy run --help"
    kind = group.group.removeprefix("ashi-sink-")
    if kind.endswith("-trades"):
        return f"ashi sink {kind.removesuffix('-trades')} --topic trades"
    if kind in {"sqlite", "postgres", "lake"}:
        return f"ashi sink {kind}"
    return "ashi sink --help"


def _groups(snapshot: Snapshot, ground: Ground) -> Iterator[Problem]:
    for group in [*(snapshot.stages or ()), *(snapshot.stores or ())]:
        yield from _members(group, ground)
        for lag in group.lags or ():
            where = f"group {group.group} in topic {lag.topic}"
            if lag.lost:
                begin_anew = "ashi aggregate reconfigure" if group.stage == "aggregate" else worker_command(group)
                if group.stage == "sink":
                    begin_anew += " --from-beginning"
                yield Problem(
                    "error",
                    "group.lost",
                    group.group,
                    f"the next records that {where} would read have expired, in partitions {_numbers(lag.lost)}",
                    begin_anew,
                )
            if group.stage == "strategy" and lag.seconds > LAG_WARNING_S:
                text = (
                    f"the strategy of {where} is {span(lag.seconds)} and {counted(lag.records, 'record')} behind: no "
                    f"process runs it, or it does not keep up (not wanted any more: {_forget(group, ground)})"
                )
                yield Problem("warning", "group.lag", group.group, text, worker_command(group))
            if lag.seconds > LAG_WARNING_S and group.members:
                late = lag.seconds > LAG_ERROR_S
                more = group.members < group.partitions
                yield Problem(
                    "error" if late else "warning",
                    "group.lag",
                    group.group,
                    f"{where} is {span(lag.seconds)} and {counted(lag.records, 'record')} behind, most in partition "
                    f"{lag.partition}; {counted(group.members, 'worker')} {'share' if group.members > 1 else 'has'} "
                    f"{counted(group.partitions, 'partition')}",
                    worker_command(group) if more else "ashi doctor",
                )


def _members(group: Group, ground: Ground) -> Iterator[Problem]:
    if group.members is None:
        return
    behind = sum(lag.records for lag in group.lags or ())
    if not group.members:
        if group.stage == "aggregate":
            text = f"no aggregate worker runs; {counted(behind, 'trade')} wait"
        else:
            waiting = f"{counted(behind, 'record')} wait" if behind else "nothing waits for it yet"
            text = f"nobody works in group {group.group}; {waiting} (not wanted any more: {_forget(group, ground)})"
        yield Problem("error", "group.absent", group.group, text, worker_command(group))
    elif group.state in {"PreparingRebalance", "CompletingRebalance"}:
        workers = counted(group.members, "worker")
        text = f"group {group.group} is sharing its partitions out among {workers}: nothing is read meanwhile"
        yield Problem("warning", "group.rebalancing", group.group, text, "ashi status")
    elif group.unowned:
        text = f"partitions {_numbers(group.unowned)} of group {group.group} are with none of its workers"
        yield Problem("error", "group.unowned", group.group, text, worker_command(group))
    elif group.members > group.partitions:
        idle = group.members - group.partitions
        text = f"{counted(idle, 'worker')} of group {group.group} {'has' if idle == 1 else 'have'} no partition"
        yield Problem("warning", "group.idle", group.group, text, "ashi topics check")


def _forget(group: Group, ground: Ground) -> str:
    return f"{ground.tool('kafka-consumer-groups')} --delete --group {ground.prefix}{group.group}"


def _numbers(numbers: Iterable[int]) -> str:
    return named([str(number) for number in numbers], most=8)


def _candles(snapshot: Snapshot, ground: Ground) -> Iterator[Problem]:
    if (delay := snapshot.delay) is not None and delay.p99 > DELAY_WARNING_S:
        text = (
            f"1 % of the candles of the last {span(delay.seconds)} came {span(delay.p99)} or more after they might "
            f"have closed, the median {span(delay.median)}"
        )
        yield Problem("warning", "candles.late", "", text, "ashi doctor")
    if snapshot.feeds is None or snapshot.candles is None or not ground.finest_us:
        return
    traded = max((venue.last_traded_at or 0 for venue in snapshot.feeds.venues), default=0)
    newest = max((candle.close_time for candle in snapshot.candles), default=0)
    # The last trade has closed all windows that ended so long before it.
    due = (min(traded, snapshot.at) - ground.lateness_us) // ground.finest_us * ground.finest_us
    first_missing = newest + ground.finest_us if newest else due
    if due > newest and snapshot.at - first_missing - ground.lateness_us > BEHIND_S * SECOND_US:
        there = f"no candle that closed after {format_time(newest)}" if newest else "there is no candle"
        text = f"trades came until {format_time(traded)}, but {there}"
        yield Problem("error", "candles.missing", "", text, "ashi doctor")


def _gaps(snapshot: Snapshot) -> Iterator[Problem]:
    if snapshot.gaps is None:
        return
    lost = [gap for gap in snapshot.gaps.worst if gap.state == "lost"]
    if snapshot.gaps.lost and lost:
        first = lost[0]
        yield Problem(
            "warning",
            "gaps.lost",
            first.symbol,
            f"{counted(snapshot.gaps.lost, 'gap')} of the last {span(snapshot.gaps.seconds)} could not be repaired, "
            f"the latest of {first.symbol}: {first.reason}",
            _backfill(first),
        )
    if (late := snapshot.gaps.latest_late) is not None:
        yield Problem(
            "warning",
            "gaps.late",
            late.symbol,
            f"{counted(snapshot.gaps.late, 'gap')} of the last {span(snapshot.gaps.seconds)} in which candles lack "
            f"trades that came too late, the latest of {late.symbol} at {format_time(late.from_time)}",
            _rebuild(late),
        )
    old = [
        gap
        for gap in snapshot.gaps.worst
        if gap.state == "open" and gap.to_time is not None and snapshot.at - gap.to_time > OPEN_GAP_US
    ]
    if old:
        oldest = min(old, key=lambda gap: gap.from_time)
        age = span_us(snapshot.at - oldest.from_time)
        text = f"{counted(len(old), 'gap')} not repaired for long, {oldest.symbol} since {age}: {oldest.reason}"
        yield Problem("warning", "gaps.open", oldest.symbol, text, f"ashi status --once --symbol {oldest.symbol}")


def _backfill(gap: Gap) -> str:
    venue, market = split_symbol(gap.symbol)
    # Whole seconds, with all of the gap inside.
    end_us = (gap.from_time if gap.to_time is None else gap.to_time) + SECOND_US
    return f"ashi ingest backfill {venue} {market} --from {_iso(gap.from_time)} --to {_iso(end_us)}"


def _rebuild(gap: Gap) -> str:
    # Whole days: candles of every timeframe that have a part of the gap.
    day_us = 86_400 * SECOND_US
    begin_us, last_us = gap.from_time // day_us * day_us, gap.from_time if gap.to_time is None else gap.to_time - 1
    end_us = (last_us // day_us + 1) * day_us
    return f"ashi rebuild --from {_iso(begin_us)} --to {_iso(end_us)} --symbol {gap.symbol}"


def _iso(time_us: int) -> str:
    return format_time(time_us).replace(" ", "T") + "Z"


def _letters(snapshot: Snapshot, ground: Ground) -> Iterator[Problem]:
    words = {
        TRADES_LATE: "came too late for any candle",
        TRADES_DEAD: "could not be used as trades",
        CANDLES_DEAD: "could not be stored",
    }
    for topic, what in words.items():
        if count := (snapshot.dead_letters or {}).get(topic, 0):
            name = ground.prefix + topic
            read = ground.tool("kafka-console-consumer")
            read += f" --topic {name} --from-beginning --property print.headers=true"
            yield Problem(
                "warning", "letters", topic, f"{counted(count, 'record')} of the last hour {what} (topic {name})", read
            )
