"""The settings of a process, read from the environment and checked."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ashi.contracts.errors import UsageError
from ashi.runtime.settings.catalogue import CATALOGUE, Secret, Setting
from ashi.runtime.settings.parsers import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ashi.contracts.timeframe import Timeframe

BYTES_PER_WINDOW: Final = 400
"""What one window adds to a row of state, about: see `MAX_ROW_BYTES`."""
MAX_ROW_BYTES: Final = 512 * 1024
"""A row is one Kafka record, written at every checkpoint: half of the 1 MB that brokers take by default."""
CHECKPOINTS_PER_SESSION: Final = 3
"""A session holds at least so many checkpoints, so that one slow checkpoint does not lose the partitions."""


class SettingsError(UsageError):
    """A setting is wrong; the text names the variable, its value (never a secret's) and what to write instead."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a process, checked. What each means stands in `CATALOGUE`; `_us` is in microseconds."""

    kafka_bootstrap: str
    kafka_security_protocol: str
    kafka_sasl_mechanism: str | None
    kafka_username: str | None
    kafka_password: Secret | None
    kafka_ca_file: Path | None
    partitions: int
    replication: int | None
    timeframes: tuple[Timeframe, ...]
    allowed_lateness_us: int
    correction_horizon_us: int
    quiet_close: bool
    flat_candles: int
    checkpoint_interval_us: int
    session_timeout_us: int
    websocket_url: str | None
    rest_url: str | None
    binance_api_key: Secret | None
    feed_buffer: int
    repair_patience_us: int
    storage: str = field(repr=False)
    sink_group: str | None
    sink_batch_size: int
    sink_batch_interval_us: int
    metrics_host: str
    metrics_port: int
    log_format: str
    log_level: str

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings. Raises SettingsError for the first that is wrong, or for two that contradict."""
        environment = os.environ if environ is None else environ
        settings = cls(
            **{setting.field: _read(setting, environment) for setting in CATALOGUE if setting.parse is not None}
        )
        _check_security(settings)
        _check_times(settings)
        return settings

    def secret(self, variable: str) -> Secret | None:
        """The secret that an environment variable of the catalogue sets; None when it is not set."""
        value: Secret | None = getattr(self, next(each.field for each in CATALOGUE if each.variable == variable))
        return value


def _read(setting: Setting, environ: Mapping[str, str]) -> Any:
    assert setting.parse is not None  # noqa: S101
    text: str | None = (
        _text_of_secret(setting, environ) if setting.secret else environ.get(setting.variable, "").strip()
    )
    text = text or setting.default  # an empty variable is one that is not set, as compose files write it
    if text is None:
        return None
    try:
        return setting.parse(text)
    except ValueError as error:
        shown = "" if setting.secret else f" {text!r}"
        raise SettingsError(f"{setting.variable}{shown} is wrong: {error}") from None


def _text_of_secret(setting: Setting, environ: Mapping[str, str]) -> str:
    text, path = environ.get(setting.variable, ""), environ.get(f"{setting.variable}_FILE", "")
    if not path:
        return text
    if text:
        raise SettingsError(f"{setting.variable} and {setting.variable}_FILE are both given: remove one of them")
    try:
        content = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(
            f"{setting.variable}_FILE {path!r} cannot be read ({why}): write the path of a file that holds the value"
        ) from None
    secret = content.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise SettingsError(f"{setting.variable}_FILE {path!r} is empty: write the value into it")
    return secret


def _check_security(settings: Settings) -> None:
    protocol = settings.kafka_security_protocol
    login = {
        "ASHI_KAFKA_SASL_MECHANISM": settings.kafka_sasl_mechanism,
        "ASHI_KAFKA_USERNAME": settings.kafka_username,
        "ASHI_KAFKA_PASSWORD": settings.kafka_password,
    }
    for variable, value in login.items():
        if protocol.startswith("SASL_") and value is None:
            raise SettingsError(f"ASHI_KAFKA_SECURITY_PROTOCOL {protocol!r} logs in, so {variable} must be set too")
        if not protocol.startswith("SASL_") and value is not None:
            raise SettingsError(
                f"{variable} is set but ASHI_KAFKA_SECURITY_PROTOCOL {protocol!r} does not log in: "
                "write SASL_SSL or SASL_PLAINTEXT there"
            )
    if settings.kafka_ca_file is not None and not protocol.endswith("SSL"):
        raise SettingsError(
            f"ASHI_KAFKA_CA_FILE is set but ASHI_KAFKA_SECURITY_PROTOCOL {protocol!r} is not encrypted: "
            "write SSL or SASL_SSL there"
        )


def _check_times(settings: Settings) -> None:
    lateness_us, horizon_us = settings.allowed_lateness_us, settings.correction_horizon_us
    if horizon_us < lateness_us:
        raise SettingsError(
            f"ASHI_CORRECTION_HORIZON {format_duration(horizon_us)!r} is less than ASHI_ALLOWED_LATENESS "
            f"{format_duration(lateness_us)!r}, so trades would be too late for a candle that is still open: "
            "write at least as much"
        )
    finest = settings.timeframes[0]
    windows = -(-horizon_us // finest.length_us) + 2
    if windows * BYTES_PER_WINDOW > MAX_ROW_BYTES:
        most_us = (MAX_ROW_BYTES // BYTES_PER_WINDOW - 2) * finest.length_us
        raise SettingsError(
            f"ASHI_CORRECTION_HORIZON {format_duration(horizon_us)!r} with the finest of ASHI_TIMEFRAMES, {finest}, "
            f"keeps {windows} windows, about {windows * BYTES_PER_WINDOW // 1024} KB, in each symbol's row of state; "
            f"at most {MAX_ROW_BYTES // 1024} KB are allowed: write {format_duration(most_us)} or less, "
            "or a coarser finest timeframe"
        )
    checkpoint_us, session_us = settings.checkpoint_interval_us, settings.session_timeout_us
    if checkpoint_us * CHECKPOINTS_PER_SESSION > session_us:
        raise SettingsError(
            f"ASHI_CHECKPOINT_INTERVAL {format_duration(checkpoint_us)!r} is more than a third of ASHI_SESSION_TIMEOUT "
            f"{format_duration(session_us)!r}, so a slow checkpoint would lose the partitions: write less, "
            "or a longer session"
        )


_SET_BY_KUBERNETES: Final = re.compile(r".*_(SERVICE_(HOST|PORT.*)|PORT_[0-9]+_(TCP|UDP).*)=.*|.*_PORT=(tcp|udp)://.*")


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """A warning for each `ASHI_…` variable that is not known but much like one that is.

    Others are left alone: Kubernetes sets some for every Service whose name begins with `ashi-`.
    """
    known = [setting.variable for setting in CATALOGUE]
    known += [f"{setting.variable}_FILE" for setting in CATALOGUE if setting.secret]
    warnings = []
    for variable, value in sorted((os.environ if environ is None else environ).items()):
        if variable in known or not variable.startswith("ASHI_") or _SET_BY_KUBERNETES.match(f"{variable}={value}"):
            continue
        near = difflib.get_close_matches(variable, known, n=1, cutoff=0.8)
        if near:
            warnings.append(f"{variable} is not a setting of Ashi and has no effect: did you mean {near[0]}?")
    return warnings
