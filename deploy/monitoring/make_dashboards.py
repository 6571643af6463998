"""Makes the dashboards of Grafana.

    python deploy/monitoring/make_dashboards.py

What is written is deploy/monitoring/dashboards/*.json, to be imported as they are, or provisioned from that folder.
Variables choose the data source and, where targets have that label, the namespace: one deployment of several. Panels
ask for what the rules record where that is enough.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
)

HERE: Final = Path(__file__).parent / "dashboards"
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${source}")
SECONDS, PER_SECOND, COUNT, BYTES, SHARE, AGO, STATE = (
    "s",
    "ops",
    "short",
    "bytes",
    "percentunit",
    "dateTimeFromNow",
    "none",
)


class Panel(NamedTuple):
    """One panel.

    Attributes:
        title: what it shows.
        unit: Grafana's name of it.
        queries: expressions, each with the legend of its series.
        text: how to read it.
        single: the newest value, and no graph.

    """

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    text: str = ""
    single: bool = False


class Row(NamedTuple):
    """Panels under one title."""

    title: str
    panels: Sequence[Panel]


def _p99(metric: str, by: str, legend: str) -> list[tuple[str, str]]:
    return [(f"histogram_quantile(0.99, sum by ({by}le) (rate({metric}_bucket[$__rate_interval])))", legend)]


def _quantiles(metric: str, by: str) -> list[tuple[str, str]]:
    return [
        (
            f"histogram_quantile({quantile}, sum by ({by}, le) (rate({metric}_bucket[$__rate_interval])))",
            f"p{quantile * 100:g} {{{{{by}}}}}",
        )
        for quantile in (0.5, 0.99)
    ]


OVERVIEW: Final = (
    Row(
        "Is it well?",
        (
            Panel(
                "Candles later than 5 s, last hour",
                SHARE,
                [("ashi:candles_late:ratio1h", "")],
                "The objective allows 0.1 %.",
                single=True,
            ),
            Panel(
                "Error budget of 30 days that an hour like this burns",
                SHARE,
                [("ashi:candles_late:ratio1h / 0.001 / 720", "")],
                single=True,
            ),
            Panel("Kafka reached", STATE, [("max(ashi_kafka_up)", "")], "1: by at least one process.", single=True),
            Panel("Stores up", STATE, [("min by (sink) (ashi_store_up)", "{{sink}}")], single=True),
            Panel(
                "Partitions without a worker",
                COUNT,
                [("max(ashi_aggregate_partitions) - (count(count by (partition) (ashi_position)) or vector(0))", "")],
                single=True,
            ),
            Panel(
                "Processes by stage and version",
                COUNT,
                [("count by (stage, version) (ashi_build_info)", "{{stage}} {{version}}")],
                single=True,
            ),
        ),
    ),
    Row(
        "Delays",
        (
            Panel(
                "Candles: due to acknowledged",
                SECONDS,
                _quantiles("ashi_candle_delay_seconds", "timeframe"),
                "See docs/operations.md for what counts.",
            ),
            Panel("Rows: appended to stored", SECONDS, _quantiles("ashi_row_delay_seconds", "sink")),
            Panel("Lag of aggregate", SECONDS, [("ashi:aggregate_lag_seconds:max", "partition {{partition}}")]),
            Panel("Lag of sinks", SECONDS, [("ashi:sink_lag_seconds:max", "{{sink}} {{topic}}")]),
        ),
    ),
    Row(
        "Flow",
        (
            Panel("Trades published", PER_SECOND, [("ashi:trades_published:rate2m", "{{venue}}")]),
            Panel(
                "Trades folded", PER_SECOND, [("sum(rate(ashi_trades_aggregated_total[$__rate_interval]))", "folded")]
            ),
            Panel(
                "Candles sent",
                PER_SECOND,
                [
                    (
                        "sum by (timeframe, kind) (rate(ashi_candles_emitted_total[$__rate_interval]))",
                        "{{timeframe}} {{kind}}",
                    )
                ],
            ),
            Panel(
                "Candles stored",
                PER_SECOND,
                [("sum by (sink) (rate(ashi_candles_written_total[$__rate_interval]))", "{{sink}}")],
            ),
        ),
    ),
    Row(
        "Processes",
        (
            Panel("Memory", BYTES, [('process_resident_memory_bytes{job=~"ashi.*"}', "{{job}} {{instance}}")]),
            Panel(
                "CPU",
                SHARE,
                [('rate(process_cpu_seconds_total{job=~"ashi.*"}[$__rate_interval])', "{{job}} {{instance}}")],
            ),
            Panel("Open files", COUNT, [('process_open_fds{job=~"ashi.*"}', "{{job}} {{instance}}")]),
        ),
    ),
)

INGEST: Final = (
    Row(
        "Feeds",
        (
            Panel("Markets by state", COUNT, [("sum by (venue, state) (ashi_feed_symbols)", "{{venue}} {{state}}")]),
            Panel("Connections", COUNT, [("sum by (venue) (ashi_feed_connections)", "{{venue}}")]),
            Panel(
                "Last trade",
                AGO,
                [("max by (venue) (ashi_last_trade_timestamp_seconds) * 1000", "{{venue}}")],
                single=True,
            ),
            Panel(
                "Frames",
                PER_SECOND,
                [("sum by (venue, outcome) (rate(ashi_frames_total[$__rate_interval]))", "{{venue}} {{outcome}}")],
            ),
            Panel(
                "Subscriptions, last hour",
                COUNT,
                [("sum by (venue, outcome) (increase(ashi_subscriptions_total[1h]))", "{{venue}} {{outcome}}")],
            ),
        ),
    ),
    Row(
        "On the way to Kafka",
        (
            Panel("Frame to acknowledgment", SECONDS, _quantiles("ashi_frame_to_ack_seconds", "venue")),
            Panel(
                "Trade to acknowledgment", SECONDS, _quantiles("ashi_trade_delay_seconds", "venue"), "By two clocks."
            ),
            Panel("Trades held in memory", COUNT, [("sum by (venue) (ashi_trades_held)", "{{venue}}")]),
            Panel(
                "Clocks ahead of ours",
                SECONDS,
                [("max by (venue, kind) (ashi_clock_ahead_seconds)", "{{venue}} {{kind}}")],
            ),
        ),
    ),
    Row(
        "Repairs",
        (
            Panel(
                "REST requests",
                PER_SECOND,
                [
                    (
                        "sum by (venue, outcome) (rate(ashi_rest_requests_total[$__rate_interval]))",
                        "{{venue}} {{outcome}}",
                    )
                ],
            ),
            Panel(
                "Markets read by others too",
                COUNT,
                [("sum by (venue, kind) (ashi_feed_shared_symbols)", "{{venue}} {{kind}}")],
            ),
        ),
    ),
)

AGGREGATE: Final = (
    Row(
        "Event time and lag",
        (
            Panel(
                "Event time behind the clock",
                SECONDS,
                [("time() - max by (partition) (ashi_event_timestamp_seconds)", "partition {{partition}}")],
                "Of a quiet partition it grows, and nothing is wrong.",
            ),
            Panel(
                "Records not folded yet",
                COUNT,
                [("max by (partition) (ashi_aggregate_lag_records)", "partition {{partition}}")],
            ),
            Panel("Lag", SECONDS, [("ashi:aggregate_lag_seconds:max", "partition {{partition}}")]),
            Panel(
                "Held back by open transactions",
                COUNT,
                [("max by (partition) (ashi_records_held_back)", "partition {{partition}}")],
            ),
        ),
    ),
    Row(
        "Checkpoints and state",
        (
            Panel(
                "A checkpoint takes",
                SECONDS,
                _p99("ashi_checkpoint_seconds", "", "p99"),
            ),
            Panel(
                "Since the last checkpoint",
                SECONDS,
                [("time() - min by (instance) (ashi_checkpoint_timestamp_seconds)", "{{instance}}")],
            ),
            Panel(
                "Rows written",
                PER_SECOND,
                [("sum by (timeframe) (rate(ashi_rows_written_total[$__rate_interval]))", "{{timeframe}}")],
            ),
            Panel(
                "Symbols whose rows wait",
                COUNT,
                [("sum by (partition) (ashi_symbols_waiting)", "partition {{partition}}")],
            ),
            Panel(
                "Greatest row, of its limit",
                SHARE,
                [
                    ("max(ashi_row_bytes) / max(ashi_row_limit_bytes)", "bytes"),
                    ("max(ashi_id_intervals) / max(ashi_id_intervals_limit)", "ids"),
                ],
            ),
        ),
    ),
    Row(
        "Hand-overs",
        (
            Panel(
                "Rebalances, last hour", COUNT, [("sum by (stage) (increase(ashi_rebalances_total[1h]))", "{{stage}}")]
            ),
            Panel(
                "Standstill, share of the time",
                SHARE,
                [
                    (
                        "sum by (instance, kind) (rate(ashi_standstill_seconds_total[$__rate_interval]))",
                        "{{instance}} {{kind}}",
                    )
                ],
            ),
            Panel("Records left to restore", COUNT, [("ashi_restore_remaining_records", "{{instance}}")]),
            Panel(
                "The last start took",
                SECONDS,
                [("max by (instance, kind) (ashi_handover_seconds)", "{{instance}} {{kind}}")],
            ),
            Panel(
                "Clock ahead of Kafka's", SECONDS, [("max by (instance) (ashi_clock_offset_seconds)", "{{instance}}")]
            ),
        ),
    ),
    Row(
        "Candles in progress",
        (
            Panel(
                "Updates",
                PER_SECOND,
                [("sum by (timeframe) (rate(ashi_live_updates_total[$__rate_interval]))", "{{timeframe}}")],
            ),
            Panel(
                "CPU of it",
                SHARE,
                [("sum by (instance) (rate(ashi_live_seconds_total[$__rate_interval]))", "{{instance}}")],
            ),
            Panel("Interval", SECONDS, [("max by (instance) (ashi_live_interval_seconds)", "{{instance}}")]),
        ),
    ),
)

SINKS: Final = (
    Row(
        "Stores",
        (
            Panel("Up", STATE, [("min by (sink) (ashi_store_up)", "{{sink}}")], single=True),
            Panel(
                "Last write",
                AGO,
                [("max by (sink) (ashi_store_write_timestamp_seconds) * 1000", "{{sink}}")],
                single=True,
            ),
            Panel("Rows: appended to stored", SECONDS, _quantiles("ashi_row_delay_seconds", "timeframe")),
            Panel("A write takes", SECONDS, _quantiles("ashi_write_seconds", "sink")),
            Panel("Rows in a batch", COUNT, _quantiles("ashi_batch_rows", "sink")),
        ),
    ),
    Row(
        "Behind",
        (
            Panel("Lag", SECONDS, [("ashi:sink_lag_seconds:max", "{{sink}} {{topic}}")]),
            Panel(
                "Records not stored yet",
                COUNT,
                [("sum by (sink, topic) (ashi_sink_lag_records)", "{{sink}} {{topic}}")],
            ),
            Panel(
                "Lag, of what Kafka keeps",
                SHARE,
                [
                    (
                        "max by (sink, topic) (ashi_sink_lag_seconds)"
                        " / on (topic) group_left () min by (topic) (ashi_topic_retention_seconds)",
                        "{{sink}} {{topic}}",
                    )
                ],
            ),
            Panel(
                "Candles read and written",
                PER_SECOND,
                [
                    ("sum by (sink) (rate(ashi_candles_read_total[$__rate_interval]))", "read {{sink}}"),
                    ("sum by (sink) (rate(ashi_candles_written_total[$__rate_interval]))", "written {{sink}}"),
                ],
            ),
        ),
    ),
)

STRATEGIES_AND_CHART: Final = (
    Row(
        "Strategies",
        (
            Panel("Running", STATE, [("max by (strategy) (ashi_strategy_info)", "{{strategy}}")], single=True),
            Panel(
                "Close of the last candle done",
                AGO,
                [("max by (instance) (ashi_strategy_close_timestamp_seconds) * 1000", "{{instance}}")],
                single=True,
            ),
            Panel(
                "Candle's close to signal",
                SECONDS,
                _p99("ashi_strategy_signal_delay_seconds", "instance, ", "p99 {{instance}}"),
            ),
            Panel(
                "Events",
                PER_SECOND,
                [
                    (
                        "sum by (instance, kind) (rate(ashi_strategy_events_total[$__rate_interval]))",
                        "{{instance}} {{kind}}",
                    )
                ],
            ),
            Panel(
                "Signals",
                PER_SECOND,
                [
                    (
                        "sum by (instance, state) (rate(ashi_strategy_signals_total[$__rate_interval]))",
                        "{{instance}} {{state}}",
                    )
                ],
            ),
            Panel(
                "An event takes",
                SECONDS,
                _p99("ashi_strategy_event_seconds", "instance, ", "p99 {{instance}}"),
            ),
            Panel("Blocked", STATE, [("max by (instance) (ashi_strategy_blocked)", "{{instance}}")]),
        ),
    ),
    Row(
        "Chart",
        (
            Panel(
                "A bar's change to the network",
                SECONDS,
                _p99("ashi_chart_send_seconds", "instance, ", "p99 {{instance}}"),
            ),
            Panel("Behind the topics", SECONDS, [("max by (instance) (ashi_chart_lag_seconds)", "{{instance}}")]),
            Panel("Series held", COUNT, [("sum by (instance) (ashi_chart_series)", "{{instance}}")]),
            Panel("Pages", COUNT, [("sum by (instance) (ashi_chart_clients)", "{{instance}}")]),
            Panel(
                "Messages",
                PER_SECOND,
                [("sum by (kind) (rate(ashi_chart_messages_total[$__rate_interval]))", "{{kind}}")],
            ),
            Panel(
                "Bytes", BYTES, [("sum by (instance) (rate(ashi_chart_bytes_total[$__rate_interval]))", "{{instance}}")]
            ),
        ),
    ),
)

DASHBOARDS: Final = {
    "overview": ("Ashi: overview", OVERVIEW),
    "ingest": ("Ashi: ingest", INGEST),
    "aggregate": ("Ashi: aggregate", AGGREGATE),
    "sinks": ("Ashi: sinks", SINKS),
    "strategies-and-chart": ("Ashi: strategies and chart", STRATEGIES_AND_CHART),
}


def make(name: str) -> str:
    """A dashboard as Grafana imports it."""
    title, rows = DASHBOARDS[name]
    made = (
        dashboard.Dashboard(title)
        .uid(f"ashi-{name}")
        .tags(["ashi"])
        .editable()
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("utc")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("source").label("Data source").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("namespace")
            .label("Namespace")
            .datasource(SOURCE)
            .query("label_values(ashi_build_info, namespace)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .include_all(True)
            .all_value(".*")
            .current(VariableOption(text="All", value="$__all"))
        )
        .link(
            dashboard.DashboardLink("Ashi")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["ashi"])
            .as_dropdown(True)
            .keep_time(True)
        )
    )
    for row in rows:
        made = made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made = made.with_panel(_panel(panel))
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _of_namespace(expression: str) -> str:
    """The same of the chosen namespace: of every metric, and so of what the rules have recorded."""

    def chosen(match: re.Match[str]) -> str:
        rest = "" if match[2] is None else f"{match[2]}, "
        return f'{match[1]}{{{rest}namespace=~"$namespace"}}'

    return re.sub(r"\b((?:ashi|process)[_:][a-z0-9_:]+)(?:\{([^}]*)\})?", chosen, expression)


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel:
    built: stat.Panel | timeseries.Panel = stat.Panel() if panel.single else timeseries.Panel()
    built = built.title(panel.title).description(panel.text).datasource(SOURCE).unit(panel.unit)
    built = built.span(4 if panel.single else 8).height(5 if panel.single else 8)
    for number, (expression, legend) in enumerate(panel.queries):
        query = (
            prometheus.Dataquery().expr(_of_namespace(expression)).legend_format(legend).ref_id(chr(ord("A") + number))
        )
        built = built.with_target(query.instant() if panel.single else query.range())
    return built


def main() -> None:
    """Write all."""
    HERE.mkdir(exist_ok=True)
    for name in DASHBOARDS:
        (HERE / f"{name}.json").write_text(make(name), encoding="utf-8")


if __name__ == "__main__":
    main()
