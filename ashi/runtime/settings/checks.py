"""Settings that contradict each other."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from ashi.runtime.settings.declare import SettingsError
from ashi.runtime.settings.kafka import OAUTHBEARER
from ashi.runtime.settings.parsers import format_duration

if TYPE_CHECKING:
    from ashi.contracts.timeframe import Timeframe
    from ashi.runtime.settings.aggregate import AggregateSettings
    from ashi.runtime.settings.kafka import KafkaSettings

BYTES_PER_WINDOW: Final = 400
"""What one window adds to a row of state, about: see `MAX_WINDOWS_BYTES`."""
MAX_WINDOWS_BYTES: Final = 512 * 1024
"""What the windows of a row may come to. A row is one Kafka record, written at every checkpoint: half of the 1 MB that
brokers take by default. (A row with many trade ids may be longer, see `MAX_CHANGELOG_RECORD_BYTES`.)"""
CHECKPOINTS_PER_SESSION: Final = 3
"""A session holds at least so many checkpoints, so that one slow checkpoint does not lose the partitions."""


def check_security(settings: KafkaSettings) -> None:
    """Whether the login is complete and would be used, and so are the certificates. Raises SettingsError."""
    protocol = settings.kafka_security_protocol
    by_token = settings.kafka_sasl_mechanism == OAUTHBEARER
    named = {"ASHI_KAFKA_USERNAME": settings.kafka_username, "ASHI_KAFKA_PASSWORD": settings.kafka_password}
    tokens = {
        "ASHI_KAFKA_TOKEN_FILE": settings.kafka_token_file,
        "ASHI_KAFKA_TOKEN_COMMAND": settings.kafka_token_command,
    }
    login = {"ASHI_KAFKA_SASL_MECHANISM": settings.kafka_sasl_mechanism, **named}
    for variable, value in (login | tokens).items():
        if not protocol.startswith("SASL_") and value is not None:
            raise SettingsError(
                f"{variable} is set but ASHI_KAFKA_SECURITY_PROTOCOL {protocol!r} does not log in: "
                "write SASL_SSL or SASL_PLAINTEXT there"
            )
    needed = {} if by_token else login
    for variable, value in needed.items():
        if protocol.startswith("SASL_") and value is None:
            raise SettingsError(f"ASHI_KAFKA_SECURITY_PROTOCOL {protocol!r} logs in, so {variable} must be set too")
    for variable, value in (named if by_token else tokens).items():
        if value is not None:
            raise SettingsError(
                f"{variable} is set but ASHI_KAFKA_SASL_MECHANISM {settings.kafka_sasl_mechanism!r} logs in "
                f"{'by a token' if by_token else 'by a name and a password'}: unset it"
            )
    if by_token and sum(value is not None for value in tokens.values()) != 1:
        raise SettingsError(
            f"ASHI_KAFKA_SASL_MECHANISM {OAUTHBEARER!r} logs in by a token: set one of {', '.join(tokens)}"
        )
    if settings.kafka_token_command is not None:
        try:
            shlex.split(settings.kafka_token_command)
        except ValueError as error:
            raise SettingsError(f"ASHI_KAFKA_TOKEN_COMMAND is not a command line: {str(error).lower()}") from None
    files = {
        "ASHI_KAFKA_CA_FILE": settings.kafka_ca_file,
        "ASHI_KAFKA_CERT_FILE": settings.kafka_cert_file,
        "ASHI_KAFKA_KEY_FILE": settings.kafka_key_file,
    }
    for variable, path in files.items():
        if path is not None and not protocol.endswith("SSL"):
            raise SettingsError(
                f"{variable} is set but ASHI_KAFKA_SECURITY_PROTOCOL {protocol!r} is not encrypted: "
                "write SSL or SASL_SSL there"
            )
    if (settings.kafka_cert_file is None) != (settings.kafka_key_file is None):
        raise SettingsError("ASHI_KAFKA_CERT_FILE and ASHI_KAFKA_KEY_FILE belong together: set both or none")


def check_windows(settings: AggregateSettings, finest: Timeframe) -> None:
    """Whether lateness and horizon fit together, and what they keep of the finest timeframe. Raises SettingsError."""
    lateness_us, horizon_us = settings.allowed_lateness_us, settings.correction_horizon_us
    if horizon_us < lateness_us:
        raise SettingsError(
            f"ASHI_CORRECTION_HORIZON {format_duration(horizon_us)!r} is less than ASHI_ALLOWED_LATENESS "
            f"{format_duration(lateness_us)!r}, so trades would be too late for a candle that is still open: "
            "write at least as much"
        )
    windows = -(-horizon_us // finest.length_us) + 2
    if windows * BYTES_PER_WINDOW > MAX_WINDOWS_BYTES:
        most_us = (MAX_WINDOWS_BYTES // BYTES_PER_WINDOW - 2) * finest.length_us
        raise SettingsError(
            f"ASHI_CORRECTION_HORIZON {format_duration(horizon_us)!r} with the finest of ASHI_TIMEFRAMES, {finest}, "
            f"keeps {windows} windows, about {windows * BYTES_PER_WINDOW // 1024} KB, in each symbol's row of state; "
            f"at most {MAX_WINDOWS_BYTES // 1024} KB are allowed: write {format_duration(most_us)} or less, "
            "or a coarser finest timeframe"
        )


def check_checkpoints(checkpoint_us: int, session_us: int) -> None:
    """Whether a slow checkpoint would lose the partitions. Raises SettingsError."""
    if checkpoint_us * CHECKPOINTS_PER_SESSION > session_us:
        raise SettingsError(
            f"ASHI_CHECKPOINT_INTERVAL {format_duration(checkpoint_us)!r} is more than a third of ASHI_SESSION_TIMEOUT "
            f"{format_duration(session_us)!r}, so a slow checkpoint would lose the partitions: write less, "
            "or a longer session"
        )
