"""What a rehearsal has to show, as a table in Markdown: that of docs/rehearsal.md."""

from __future__ import annotations

from collections.abc import Mapping

from multihost.delays import longest, middle_and_worst_hundredth
from multihost.harness import AIM_S, Result, Row


def table(result: Result) -> str:
    """The table, and the numbers below it."""
    numbers = result.numbers
    stored = ", ".join(f"{name} {rows:,}" for name, rows in numbers.rows.items())
    calm = "{:.2f} s, {:.2f} s".format(*middle_and_worst_hundredth(result.calm))
    return "\n".join(
        [
            "",
            "| fault | lasted, s | longest stall of a partition, s: worst, median | partitions that waited > 1 s "
            "| delay of candles, s: median, 99 % | others at a restart, s | ends of workers | candles held |",
            "|---|---|---|---|---|---|---|---|",
            *map(_row, result.rows),
            "",
            f"Before the first fault: {calm}, at most {longest(result.calm):.2f} s (delay of candles).",
            f"{numbers.trades:,} trades ({numbers.repeated:,} published twice, {numbers.late:,} too late to count), "
            f"rows: {stored}. Workers said {result.asked:,} times that they live. {result.seconds:.0f} s in all.",
            "",
        ]
    )


def _row(row: Row) -> str:
    stalls = sorted(row.stalls.values())
    middle, worst = middle_and_worst_hundredth(row.delays)
    cells = (
        f"{row.fault.what} (`{row.fault.name}`)",
        f"{row.lasted_s:.0f}",
        f"{stalls[-1]:.1f}, {stalls[len(stalls) // 2]:.1f}",
        f"{sum(stall > AIM_S for stall in stalls)} of {len(stalls)}",
        f"{middle:.2f}, {worst:.1f}",
        _others(row.others_s),
        _ends(row.ends),
        f"{row.rows:,}",
    )
    return f"| {' | '.join(cells)} |"


def _others(others_s: Mapping[str, float]) -> str:
    if not others_s:
        return ""
    name = max(others_s, key=lambda each: others_s[each])
    return f"{others_s[name]:.2f} ({name})"


def _ends(ends: Mapping[str, int]) -> str:
    told = {end: count for end, count in ends.items() if not end.endswith("0 after SIGTERM")}
    return ", ".join(f"{count} of {end}" for end, count in sorted(told.items())) or "none"
