"""The settings of an ingest worker."""

from __future__ import annotations

from dataclasses import dataclass, field

from ashi.runtime.settings.declare import Secret, setting
from ashi.runtime.settings.parsers import duration_between, endpoint, integer_between


@dataclass(frozen=True)
class IngestSettings:
    """Where feeds are read from, and what happens while one is repaired."""

    websocket_url: str | None = field(
        metadata=setting(
            endpoint("ws", "wss"),
            None,
            "Websocket that live feeds are read from: a proxy, or a simulator.",
            when_unset="the venue's own",
        )
    )
    rest_url: str | None = field(
        metadata=setting(
            endpoint("http", "https"),
            None,
            "REST interface that feeds are repaired from: a proxy, or a simulator.",
            when_unset="the venue's own",
        )
    )
    binance_api_key: Secret | None = field(
        metadata=setting(
            Secret,
            None,
            "API key for `historicalTrades` of Binance USD-M; without one only its latest 1,000 trades can be "
            "repaired.",
            secret=True,
        )
    )
    market_list_interval_us: int = field(
        metadata=setting(
            duration_between("1s", "1d"),
            "5m",
            "How often a live worker reads the venue's list of markets: then it notices halts, listings and "
            "delistings, and keeps topic `instruments`.",
        )
    )
    feed_buffer: int = field(
        metadata=setting(
            integer_between(1_000, 10_000_000),
            "100000",
            "Trades that an ingest worker keeps in memory while Kafka is slow or a repair goes on (about 1 KB each); "
            "with more it closes its connections, and repairs later.",
        )
    )
    repair_patience_us: int = field(
        metadata=setting(
            duration_between("1s", "1d"),
            "5m",
            "How long what a feed has missed is asked for without anything new; then its gap is reported as lost, and "
            "asked for more seldom.",
        )
    )
