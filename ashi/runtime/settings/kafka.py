"""How Kafka is reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ashi.runtime.settings.declare import Secret, setting
from ashi.runtime.settings.parsers import duration_between, one_line, one_of, parse_bootstrap, parse_existing_file

if TYPE_CHECKING:
    from pathlib import Path

OAUTHBEARER = "OAUTHBEARER"
"""To log in by a token."""


@dataclass(frozen=True)
class KafkaSettings:
    """Where Kafka is, how one logs in, and how long it waits for a member of a group."""

    kafka_bootstrap: str = field(
        metadata=setting(parse_bootstrap, "127.0.0.1:9092", "Brokers to ask first, `host:port,host:port`.")
    )
    kafka_security_protocol: str = field(
        metadata=setting(
            one_of("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
            "PLAINTEXT",
            "How to speak to the brokers: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.",
        )
    )
    kafka_sasl_mechanism: str | None = field(
        metadata=setting(
            one_of("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", OAUTHBEARER),
            None,
            "How to log in: `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`; needed with `SASL_…`.",
        )
    )
    kafka_username: str | None = field(
        metadata=setting(str, None, "Name to log in with; needed with `SASL_…`, but for tokens.")
    )
    kafka_password: Secret | None = field(
        metadata=setting(Secret, None, "Password to log in with; needed with `SASL_…`, but for tokens.", secret=True)
    )
    kafka_token_file: Path | None = field(
        metadata=setting(
            parse_existing_file,
            None,
            "A token to log in with, for `OAUTHBEARER`; read again for each connection, so that others can renew it.",
        )
    )
    kafka_token_command: str | None = field(
        metadata=setting(
            str,
            None,
            "A command that prints a token to log in with, for `OAUTHBEARER`; run for new connections, at most every "
            "5 s, without a shell.",
        )
    )
    kafka_ca_file: Path | None = field(
        metadata=setting(
            parse_existing_file,
            None,
            "Certificates (PEM) that the brokers' certificates are checked against, for `SSL` and `SASL_SSL`.",
            when_unset="the system's",
        )
    )
    kafka_compression: str = field(
        metadata=setting(
            one_of("zstd", "snappy", "lz4", "gzip", "none"),
            "zstd",
            "How what is sent to Kafka is compressed: `zstd`, `snappy`, `lz4`, `gzip` or `none`. All are read.",
        )
    )
    kafka_cert_file: Path | None = field(
        metadata=setting(
            parse_existing_file,
            None,
            "Our own certificate (PEM, with those between it and its authority) for brokers that ask for one, with "
            "`SSL` and `SASL_SSL`; it and the other two files are read again when they are replaced.",
        )
    )
    kafka_key_file: Path | None = field(
        metadata=setting(
            parse_existing_file,
            None,
            "The private key of that certificate (PEM, without a passphrase).",
        )
    )
    kafka_rack: str | None = field(
        metadata=setting(
            one_line,
            None,
            "The rack or availability zone that this process runs in, as `broker.rack` says it: what is read comes "
            "from a copy there, where the brokers have `replica.selector.class` for it.",
        )
    )
    session_timeout_us: int = field(
        metadata=setting(
            duration_between("6s", "30m"),
            "10s",
            "How long a worker may be silent before its partitions are given to others.",
        )
    )
