"""The settings of a process, read from the environment and checked."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ashi.runtime.settings.aggregate import AggregateSettings
from ashi.runtime.settings.catalogue import CATALOGUE
from ashi.runtime.settings.chart import ChartSettings
from ashi.runtime.settings.checks import check_checkpoints, check_security, check_windows
from ashi.runtime.settings.declare import PREFIX, Secret, Setting, SettingsError
from ashi.runtime.settings.ingest import IngestSettings
from ashi.runtime.settings.kafka import KafkaSettings
from ashi.runtime.settings.process import ProcessSettings
from ashi.runtime.settings.sink import SinkSettings
from ashi.runtime.settings.strategy import StrategySettings
from ashi.runtime.settings.topics import TopicSettings

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Settings(
    ProcessSettings,
    ChartSettings,
    StrategySettings,
    SinkSettings,
    AggregateSettings,
    IngestSettings,
    TopicSettings,
    KafkaSettings,
):
    """The settings of a process, checked: those of all stages in one. `_us` is in microseconds."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings. Raises SettingsError for the first that is wrong, or for two that contradict."""
        environment = os.environ if environ is None else environ
        settings = cls(
            **{setting.field: _read(setting, environment) for setting in CATALOGUE if setting.parse is not None}
        )
        check_security(settings)
        check_windows(settings, finest=settings.timeframes[0])
        check_checkpoints(settings.checkpoint_interval_us, settings.session_timeout_us)
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
        value = setting.parse(text)
    except ValueError as error:
        shown = "" if setting.secret else f" {text!r}"
        raise SettingsError(f"{setting.variable}{shown} is wrong: {error}") from None
    if isinstance(value, Secret) and (path := environ.get(f"{setting.variable}_FILE", "")):
        parse = setting.parse
        return value.kept_in(Path(path), lambda: parse(_text_of_secret(setting, {f"{setting.variable}_FILE": path})))
    return value


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


_SET_BY_KUBERNETES: Final = re.compile(r".*_(SERVICE_(HOST|PORT.*)|PORT_[0-9]+_(TCP|UDP).*)=.*|.*_PORT=(tcp|udp)://.*")


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """A warning for each `ASHI_…` variable that is not known but much like one that is.

    Others are left alone: Kubernetes sets some for every Service whose name begins with `ashi-`.
    """
    known = [setting.variable for setting in CATALOGUE]
    known += [f"{setting.variable}_FILE" for setting in CATALOGUE if setting.secret]
    warnings = []
    for variable, value in sorted((os.environ if environ is None else environ).items()):
        if variable in known or not variable.startswith(PREFIX) or _SET_BY_KUBERNETES.match(f"{variable}={value}"):
            continue
        near = difflib.get_close_matches(variable, known, n=1, cutoff=0.8)
        if near:
            warnings.append(f"{variable} is not a setting of Ashi and has no effect: did you mean {near[0]}?")
    return warnings
