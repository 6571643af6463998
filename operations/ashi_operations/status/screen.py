"""A snapshot for people, as rich draws it: what is wrong first, then the way of the trades."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Group as Lines
from rich.table import Table
from rich.text import Text

from ashi.contracts.timeframe import SECOND_US, format_time
from ashi.runtime.words import counted
from ashi_operations.status.snapshot import KINDS
from ashi_operations.words import named, span, span_us

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from ashi_operations.problem import Problem
    from ashi_operations.status.snapshot import Delay, Feeds, Gaps, Group, Newest, Snapshot

TROUBLED: Final = 8
"""Feeds that are told one by one, where there is no more room."""
_STYLES: Final = {"error": "bold red", "warning": "yellow"}
_SIGNS: Final = {"error": "✗", "warning": "!"}
_STATE_STYLES: Final = {
    "down": "bold red",
    "stale": "bold red",
    "silent": "yellow",
    "repairing": "yellow",
    "connected": "green",
}
_UNKNOWN: Final = "?"
_LATE_S: Final = 30.0


def draw(snapshot: Snapshot, *, troubled: int = TROUBLED, footer: str = "") -> RenderableType:
    """All of it. `troubled`: at most so many feeds are told one by one. `footer`: a last line."""
    parts: list[RenderableType] = [_head(snapshot), Text(), *problem_lines(snapshot.problems)]
    if not snapshot.problems:
        well = "nothing is wrong" if not snapshot.unknown else "nothing is known to be wrong"
        parts.append(Text(f"✓ {well}", style="bold green"))
    if snapshot.unknown:
        parts.append(Text())
        parts += [Text(f"? not known: {each.what} ({each.reason})", style="magenta") for each in snapshot.unknown]
    if snapshot.feeds is not None:
        parts += _feeds(snapshot.feeds, snapshot.at, troubled)
    if snapshot.stages is not None:
        parts += [Text(), _groups("stages", snapshot.stages, snapshot.at)]
    if snapshot.stores is not None:
        parts += [Text(), _groups("stores", snapshot.stores, snapshot.at)]
        if not snapshot.stores:
            parts.append(Text("  no sink has committed anything", style="dim"))
    if snapshot.candles is not None:
        parts += [Text(), _candles(snapshot.candles, snapshot.at), _delay(snapshot.delay)]
    if snapshot.gaps is not None:
        parts += _gaps(snapshot.gaps, snapshot.dead_letters)
    if footer:
        parts += [Text(), Text(footer, style="dim")]
    return Lines(*parts)


def fitted(console: Console, snapshot: Snapshot, footer: str) -> RenderableType:
    """What `draw` gives, with as many feeds one by one as the terminal has room for."""
    for most in (40, 20, TROUBLED, 3):
        drawn = draw(snapshot, troubled=most, footer=footer)
        if len(console.render_lines(drawn)) <= console.height:
            return drawn
    return draw(snapshot, troubled=0, footer=footer)


def problem_lines(problems: Sequence[Problem]) -> list[RenderableType]:
    """Each problem, and below it the command to run next."""
    lines: list[RenderableType] = []
    for problem in problems:
        line = Text(f"{_SIGNS[problem.level]} ", style=_STYLES[problem.level])
        line.append(problem.text, style="bold" if problem.level == "error" else "")
        line.append(f"  [{problem.code}]", style="dim")
        lines += [line, Text(f"    {problem.command}", style="cyan")]
    return lines


def _head(snapshot: Snapshot) -> Text:
    brokers = "not reached" if snapshot.brokers is None else counted(snapshot.brokers, "broker")
    head = Text(f"{snapshot.kafka}", style="bold")
    return head.append(f"  {brokers}  {format_time(snapshot.at)} UTC", style="not bold")


def _table(title: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(title, style="bold")
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _feeds(feeds: Feeds, at: int, most: int) -> list[RenderableType]:
    table = _table("feeds", "symbols", *KINDS, "last trade", "complete until")
    for venue in feeds.venues:
        counts = [_count(venue.states.get(kind, 0), _STATE_STYLES[kind]) for kind in KINDS]
        until = _ago(venue.complete_until, at)
        table.add_row(venue.venue, f"{venue.symbols:,}", *counts, _ago(venue.last_traded_at, at), until)
    parts: list[RenderableType] = [Text(), table]
    parts.append(
        Text(f"{counted(feeds.symbols, 'feed')} read by {counted(feeds.workers, 'ingest worker')}", style="dim")
    )
    for feed in feeds.troubled[:most]:
        line = Text(f"  {feed.symbol} ").append(feed.state, style=_STATE_STYLES[feed.state])
        line.append(f" since {format_time(feed.since)} ({span_us(at - feed.since)})")
        if feed.last_traded_at is not None:
            line.append(f", last trade {_ago(feed.last_traded_at, at)}")
        parts.append(line.append("" if feed.reason is None else f": {feed.reason}"))
    if (left := max(len(feeds.troubled) - most, 0) + feeds.troubled_left_out) > 0:
        parts.append(Text(f"  and {counted(left, 'feed')} more (ashi status --json has them)", style="dim"))
    return parts


def _groups(title: str, groups: Sequence[Group], at: int) -> Table:
    stores = title == "stores"
    table = _table(title, "workers", "partitions", "behind", "records", *(["newest row"] if stores else []), "")
    for group in groups:
        lags = group.lags
        seconds = None if lags is None else max((lag.seconds for lag in lags), default=0.0)
        records = None if lags is None else sum(lag.records for lag in lags)
        cells = [
            _workers(group),
            _partitions(group),
            _UNKNOWN if seconds is None else Text(span(seconds), style="yellow" if seconds > _LATE_S else ""),
            _UNKNOWN if records is None else f"{records:,}",
            *([_ago(group.newest_row, at)] if stores else []),
            "" if group.state in {None, "Stable"} else str(group.state),
        ]
        table.add_row(group.group, *cells)
    return table


def _workers(group: Group) -> Text:
    if group.stage == "strategy":
        return Text("-", style="dim")  # its process is in no group
    if group.members is None:
        return Text(_UNKNOWN)
    return _count(group.members, "" if group.members else "bold red", zero="0")


def _partitions(group: Group) -> Text:
    if group.stage == "strategy":
        return Text(f"{group.partitions}")
    if group.members is None:
        return Text(_UNKNOWN)
    if not group.unowned:
        return Text(f"{group.partitions}")
    owned = group.partitions - len(group.unowned)
    return Text(f"{owned} of {group.partitions}", style="bold red")


def _candles(candles: Sequence[Newest], at: int) -> Table:
    table = _table("candles", "newest closed", "", "symbols", "of", "close")
    for candle in candles:
        closed = format_time(candle.close_time)
        table.add_row(
            candle.timeframe, closed, _ago(candle.close_time, at), f"{candle.symbols:,}", candle.symbol, candle.close
        )
    return table


def _delay(delay: Delay | None) -> Text:
    if delay is None:
        return Text("no candle has closed lately", style="dim")
    return Text(
        f"after they might have closed candles came: median {span(delay.median)}, 99 % {span(delay.p99)}, most "
        f"{span(delay.most)} ({counted(delay.candles, 'candle')} in {span(delay.seconds)})",
        style="dim",
    )


def _gaps(gaps: Gaps, letters: dict[str, int] | None) -> list[RenderableType]:
    text = Text(f"gaps of {span(gaps.seconds)}: ", style="bold")
    for count, word, style in (
        (gaps.open, "open", "yellow"),
        (gaps.lost, "lost", "yellow"),
        (gaps.final, "lost for good", ""),
        (gaps.late, "came too late", "yellow"),
        (gaps.repaired, "repaired", ""),
    ):
        text.append(f"{count:,} {word}  ", style=f"not bold {style if count else 'dim'}")
    if letters is not None:
        told = [f"{topic} {count:,}" for topic, count in letters.items() if count]
        text.append("\nletters of an hour: ", style="bold")
        text.append(named(told, most=9) if told else "none", style="not bold")
    return [Text(), text]


def _count(count: int, style: str, zero: str = "") -> Text:
    return Text(f"{count:,}" if count else zero or "-", style=style if count else style if zero else "dim")


def _ago(time_us: int | None, at: int) -> str:
    if time_us is None:
        return _UNKNOWN
    return f"{span_us(at - time_us)} ago" if time_us <= at + SECOND_US else f"in {span_us(time_us - at)}"
