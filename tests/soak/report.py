"""What a soak has to show, as tables in Markdown: those of docs/operations.md."""

from __future__ import annotations

from collections.abc import Sequence

from rig.steadiness import Trend
from soak.harness import Result, Row


def tables(result: Result) -> str:
    """Both tables, and the numbers below them."""
    numbers = result.numbers
    stored = ", ".join(f"{name} {rows:,}" for name, rows in numbers.rows.items())
    return "\n".join(
        [
            "",
            "| fault | lasted, s | alerts: told after, over after, s | tickets and pages beside it |",
            "|---|---|---|---|",
            *map(_row, result.rows),
            "",
            "| process | calm parts | MB | MB per hour while calm (95 %) | steps at faults, MB | again | files open |",
            "|---|---|---|---|---|---|---|",
            *map(_trend, result.trends),
            "",
            f"{numbers.trades:,} trades ({numbers.repeated:,} published twice, {numbers.late:,} too late to count), "
            f"rows: {stored}.",
            f"Ends of processes: {', '.join(f'{end}: {count}' for end, count in sorted(result.ends.items()))}.",
            "",
        ]
    )


def _row(row: Row) -> str:
    alerts = [
        f"{alert} {_seconds(told_s)}, {_seconds(over_s)}"
        for alert, told_s, over_s in zip(row.fault.alerts, row.told_s, row.over_s, strict=True)
    ]
    return f"| {row.fault.name} | {row.lasted_s:.0f} | {_listed(alerts)} | {_listed(row.beside)} |"


def _trend(trend: Trend) -> str:
    slope = "too few" if trend.slope is None else "{:+.1f} ({:+.1f} to {:+.1f})".format(*trend.slope)
    again = "none" if trend.again_mb is None else f"{trend.again_mb:+.1f}"
    return (
        f"| {trend.name} | {trend.parts} | {trend.memory_mb:.0f} | {slope} | {trend.steps_mb:+.1f} | {again} | "
        f"{trend.files[0]} → {trend.files[1]} |"
    )


def _seconds(after_s: float | None) -> str:
    return "never" if after_s is None else f"{after_s:.0f}"


def _listed(texts: Sequence[str]) -> str:
    return "; ".join(texts) or "none"
