"""What the stages really serve, while they work."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest

from ashi import __version__
from ashi.runtime.metrics import document  # noqa: F401  (importing it declares every metric)
from ashi.runtime.metrics.declare import CATALOGUE
from ashi_cli.onemachine.broker import Broker
from servers.monitored_pipeline import Pipeline, running_pipeline
from waits import until

pytestmark = [pytest.mark.kafka, pytest.mark.processes, pytest.mark.outside, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def pipeline(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with running_pipeline(kafka.bootstrap, tmp_path_factory.mktemp("pipeline")) as running:
        yield running


STAGES = ("ingest", "aggregate", "sink", "strategy", "chart")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus")
@pytest.mark.parametrize("stage", STAGES)
def test_promtool_finds_nothing_wrong_with_what_a_stage_serves(pipeline: Pipeline, stage: str) -> None:
    text = pipeline.metrics(stage)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    served = set(re.findall(r"^# TYPE (ashi_\w+)", text, re.MULTILINE))
    assert {metric.name for metric in CATALOGUE if metric.stage in {stage, "all"}} <= served


def test_a_pipeline_at_work_tells_how_late_candles_and_rows_are(pipeline: Pipeline) -> None:
    until("candles are measured", lambda: (pipeline.value("aggregate", "ashi_candle_delay_seconds_count") or 0) > 10)
    until("rows are measured", lambda: (pipeline.value("sink", "ashi_row_delay_seconds_count") or 0) > 10)
    text = pipeline.metrics("aggregate")
    count = pipeline.value("aggregate", "ashi_candle_delay_seconds_count") or 0
    total = pipeline.value("aggregate", "ashi_candle_delay_seconds_sum") or 0
    assert 0 < total / count < 10, "seconds, of a pipeline that has just begun"
    assert re.search(r'ashi_candle_delay_seconds_count\{timeframe="1s"\}', text)


def test_a_pipeline_at_work_tells_where_it_is(pipeline: Pipeline) -> None:
    until("the lag is told", lambda: pipeline.value("aggregate", "ashi_aggregate_lag_seconds") is not None)
    until("the sink's lag is told", lambda: pipeline.value("sink", "ashi_sink_lag_seconds") is not None)
    until("trades have come", lambda: pipeline.value("ingest", "ashi_last_trade_timestamp_seconds"))
    until("Kafka is known to be there", lambda: pipeline.value("sink", "ashi_kafka_up") == 1)
    assert (pipeline.value("aggregate", "ashi_aggregate_lag_seconds") or 0) < 4 * 10
    assert pipeline.value("aggregate", "ashi_kafka_up") == 1
    assert pipeline.value("aggregate", "ashi_aggregate_partitions") == 4
    assert abs((pipeline.value("ingest", "ashi_last_trade_timestamp_seconds") or 0) - time.time()) < 30
    newest = max(
        float(value)
        for value in re.findall(
            r"^ashi_event_timestamp_seconds\{.*\} (\S+)$", pipeline.metrics("aggregate"), re.MULTILINE
        )
    )
    assert abs(newest - time.time()) < 30
    assert pipeline.value("sink", "ashi_store_up") == 1
    assert abs((pipeline.value("sink", "ashi_store_write_timestamp_seconds") or 0) - time.time()) < 30
    assert pipeline.value("aggregate", "ashi_rebalances_total") == 1
    assert (pipeline.value("sink", "ashi_rebalances_total") or 0) >= 1
    assert 'ashi_topic_retention_seconds{topic="trades"} 604800.0' in pipeline.metrics("aggregate")
    assert 'ashi_topic_retention_seconds{topic="candles"}' in pipeline.metrics("sink")
    assert (pipeline.value("aggregate", "ashi_row_bytes") or 0) > 100
    assert (pipeline.value("aggregate", "ashi_id_intervals") or 0) >= 1


@pytest.mark.parametrize("stage", STAGES)
def test_each_says_which_version_it_is(pipeline: Pipeline, stage: str) -> None:
    assert f'ashi_build_info{{stage="{stage}",version="{__version__}"}} 1.0' in pipeline.metrics(stage)


def test_a_strategy_tells_how_late_its_signals_are(pipeline: Pipeline) -> None:
    until(
        "signals are written",
        lambda: (pipeline.value("strategy", "ashi_strategy_signal_delay_seconds_count") or 0) > 0,
        timeout_s=60,
    )
    assert (pipeline.value("strategy", "ashi_strategy_signal_delay_seconds_sum") or 0) > 0
