"""What a strategy reads of the topics, without a Kafka."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from ashi.contracts.topics import FEED_STATUS
from ashi.runtime.settings import Settings
from ashi_strategies.live.feed import TopicFeed


@pytest.mark.parametrize("value", [None, b"garbage"])
def test_a_status_that_is_none_is_passed_over_with_a_warning(value: bytes | None) -> None:
    feed = TopicFeed(Settings.from_environment({}), ["gmo:BTC"], ["1m"], "now")
    record = SimpleNamespace(topic=FEED_STATUS, partition=3, offset=7, key=b"gmo:BTC", value=value, headers=())
    with capture_logs() as lines:
        assert feed._statuses._take(record) is None
    assert [line["source"] for line in lines] == ["feed.status/3/7"]
