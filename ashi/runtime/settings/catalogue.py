"""The catalogue of settings: environment variable, parser, default and documentation of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ashi.runtime.settings.parsers import (
    duration_between,
    endpoint,
    group_name,
    integer_between,
    one_of,
    parse_bootstrap,
    parse_existing_file,
    parse_port,
    parse_switch,
    parse_timeframe_list,
    parse_url,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class Secret:
    """A text that is never shown: not by repr, str or a log."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, to be handed to the library that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        variable: the environment variable.
        parse: from its text to its value; raises ValueError saying what to write instead.
        default: as one would write it; None when it is not set by default.
        text: one sentence for the documentation.
        secret: also read from the file that `<variable>_FILE` names, and never shown.
        when_unset: what the documentation says in place of a default.

    """

    variable: str
    parse: Callable[[str], Any] | None
    default: str | None
    text: str
    secret: bool = False
    when_unset: str = "not set"

    @property
    def field(self) -> str:
        """The attribute of `Settings`: `ASHI_ALLOWED_LATENESS` in µs is `allowed_lateness_us`."""
        name = self.variable.removeprefix("ASHI_").lower()
        return f"{name}_us" if self.variable in _DURATIONS else name


_DURATIONS: Final = {
    "ASHI_ALLOWED_LATENESS",
    "ASHI_CORRECTION_HORIZON",
    "ASHI_CHECKPOINT_INTERVAL",
    "ASHI_SESSION_TIMEOUT",
    "ASHI_REPAIR_PATIENCE",
    "ASHI_SINK_BATCH_INTERVAL",
}

CATALOGUE: Final[tuple[Setting, ...]] = (
    Setting("ASHI_KAFKA_BOOTSTRAP", parse_bootstrap, "127.0.0.1:9092", "Brokers to ask first, `host:port,host:port`."),
    Setting(
        "ASHI_KAFKA_SECURITY_PROTOCOL",
        one_of("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
        "PLAINTEXT",
        "How to speak to the brokers: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.",
    ),
    Setting(
        "ASHI_KAFKA_SASL_MECHANISM",
        one_of("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
        None,
        "How to log in: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; needed with `SASL_…`.",
    ),
    Setting("ASHI_KAFKA_USERNAME", str, None, "Name to log in with; needed with `SASL_…`."),
    Setting("ASHI_KAFKA_PASSWORD", Secret, None, "Password to log in with; needed with `SASL_…`.", secret=True),
    Setting(
        "ASHI_KAFKA_CA_FILE",
        parse_existing_file,
        None,
        "Certificates (PEM) that the brokers' certificates are checked against, for `SSL` and `SASL_SSL`.",
        when_unset="the system's",
    ),
    Setting(
        "ASHI_PARTITIONS",
        integer_between(1, 10_000),
        "8",
        "Partitions of each topic that is keyed by symbol: the most workers that can share the work.",
    ),
    Setting(
        "ASHI_REPLICATION",
        integer_between(1, 100),
        None,
        "Copies of each partition that topics are created with.",
        when_unset="the broker's own",
    ),
    Setting(
        "ASHI_TIMEFRAMES",
        parse_timeframe_list,
        "1m,5m,1h",
        "Lengths of the candles, `1s` to `1d`, each a multiple of the finest.",
    ),
    Setting(
        "ASHI_ALLOWED_LATENESS",
        duration_between("0s", "1d"),
        "2s",
        "How long after its end, by the trades' own times, a window waits for late trades before it closes.",
    ),
    Setting(
        "ASHI_CORRECTION_HORIZON",
        duration_between("0s", "30d"),
        "2m",
        "How long after its end a closed candle is still corrected by late trades; later ones go to `trades.late`.",
    ),
    Setting(
        "ASHI_QUIET_CLOSE",
        parse_switch,
        "on",
        "`on` closes the windows of a quiet market by wall time too, `off` by the trades' own times only.",
    ),
    Setting(
        "ASHI_FLAT_CANDLES",
        integer_between(0, 100_000),
        "1440",
        "Windows without trades give flat candles, at most so many in a row; `0` turns them off.",
    ),
    Setting(
        "ASHI_CHECKPOINT_INTERVAL",
        duration_between("50ms", "30s"),
        "500ms",
        "How often an aggregate worker makes its state durable: the stretch that a crash replays.",
    ),
    Setting(
        "ASHI_SESSION_TIMEOUT",
        duration_between("6s", "30m"),
        "10s",
        "How long a worker may be silent before its partitions are given to others.",
    ),
    Setting(
        "ASHI_WEBSOCKET_URL",
        endpoint("ws", "wss"),
        None,
        "Websocket that live feeds are read from: a proxy, or a simulator.",
        when_unset="the venue's own",
    ),
    Setting(
        "ASHI_REST_URL",
        endpoint("http", "https"),
        None,
        "REST interface that feeds are repaired from: a proxy, or a simulator.",
        when_unset="the venue's own",
    ),
    Setting(
        "ASHI_BINANCE_API_KEY",
        Secret,
        None,
        "API key for `historicalTrades` of Binance USD-M; without one only its latest 1,000 trades can be repaired.",
        secret=True,
    ),
    Setting(
        "ASHI_FEED_BUFFER",
        integer_between(1_000, 10_000_000),
        "100000",
        "Trades that an ingest worker keeps in memory while Kafka is slow or a repair goes on (about 1 KB each); with "
        "more it closes its connections, and repairs later.",
    ),
    Setting(
        "ASHI_REPAIR_PATIENCE",
        duration_between("1s", "1d"),
        "5m",
        "How long live trades wait for a repair that the venue does not answer; then the gap is reported as lost.",
    ),
    Setting(
        "ASHI_STORAGE",
        parse_url,
        "sqlite:///candles.db",
        "Where sinks store candles, a URL as in SQLAlchemy (`sqlite:////absolute/path.db`); it may hold a password.",
        secret=True,
    ),
    Setting(
        "ASHI_SINK_GROUP",
        group_name,
        None,
        "Consumer group of a sink: the workers of one store share it, a second store of its kind needs another.",
        when_unset="`ashi-sink-` and the kind of store",
    ),
    Setting(
        "ASHI_SINK_BATCH_SIZE",
        integer_between(1, 100_000),
        "5000",
        "Most candles (or trades) that a sink writes at once; not set, it is 20000 for the lake.",
    ),
    Setting(
        "ASHI_SINK_BATCH_INTERVAL",
        duration_between("1ms", "1m"),
        "200ms",
        "Longest that a candle waits in a sink for others to be written with it; not set, it is 10s for the lake.",
    ),
    Setting("ASHI_METRICS_HOST", str, "127.0.0.1", "Address that `/metrics`, `/live` and `/ready` are served on."),
    Setting("ASHI_METRICS_PORT", parse_port, "0", "TCP port of the same; `0` takes a free one and logs it."),
    Setting(
        "ASHI_LOG_FORMAT",
        one_of("auto", "json", "console"),
        "auto",
        "`json` (one object a line), `console` (for people) or `auto`: `console` on a terminal, else `json`.",
    ),
    Setting(
        "ASHI_LOG_LEVEL",
        one_of("debug", "info", "warning", "error"),
        "info",
        "Least level logged: `debug`, `info`, `warning` or `error`; libraries log from `warning` on unless `debug`.",
    ),
    Setting(
        "ASHI_CACHE_DIR",
        None,
        None,
        "Directory that the `ashi` command keeps the jars of the local broker in.",
        when_unset="`$XDG_CACHE_HOME/ashi`, else `~/.cache/ashi`",
    ),
    Setting(
        "ASHI_JAVA",
        None,
        None,
        "Java program (17 or newer) to run the local broker with.",
        when_unset="the one installed with Ashi",
    ),
)
"""Settings without a parser are read by the `ashi` command itself and are here for their documentation."""
