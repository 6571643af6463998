"""How settings are declared: each once, as the field that holds it, in the class of the stage that it is for."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

from ashi.contracts.errors import UsageError
from ashi.runtime.file_stamps import stamp_of
from ashi.runtime.library_logs import WEATHER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

PREFIX: Final = "ASHI_"
_KEY: Final = "setting"

_weather = logging.getLogger(f"{WEATHER}.{__name__}")


class SettingsError(UsageError):
    """A setting is wrong; the text names the variable, its value (never a secret's) and what to write instead."""


class Secret:
    """A text that is never shown: not by repr, str or a log. Two are equal that began with the same text."""

    __slots__ = ("_again", "_newest", "_path", "_stamp", "_text")

    def __init__(self, text: str) -> None:
        self._text = self._newest = text
        self._path: Path | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._again: Callable[[], Secret] | None = None

    def kept_in(self, path: Path, again: Callable[[], Secret]) -> Secret:
        """The same, of a file: `again` reads it when it has been replaced. Raises OSError when it is gone."""
        secret = Secret(self._text)
        secret._again, secret._stamp, secret._path = again, stamp_of(path), path
        return secret

    def reveal(self) -> str:
        """The text itself, to be handed to the library that needs it; of a file the newest that could be read."""
        if self._path is not None and self._again is not None:
            try:
                if (stamp := stamp_of(self._path)) != self._stamp:
                    self._newest, self._stamp = self._again()._text, stamp
            except (OSError, ValueError, SettingsError) as error:
                told = (
                    str(error) if isinstance(error, (OSError, SettingsError)) else "it holds no value that can be one"
                )
                _weather.warning("a secret cannot be read again, going on with that of before: %s", told)
        return self._newest

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
        field: the attribute of `Settings`; that of a duration ends in `_us`, for microseconds.
        parse: from its text to its value; raises ValueError saying what to write instead. None where the setting is
            read elsewhere and is here for its documentation.
        default: as one would write it; None when it is not set by default.
        text: one sentence for the documentation.
        secret: also read from the file that `<variable>_FILE` names, and never shown; a `Secret` is read again when
            that file is replaced.
        when_unset: what the documentation says in place of a default.

    """

    field: str
    parse: Callable[[str], Any] | None
    default: str | None
    text: str
    secret: bool = False
    when_unset: str = "not set"

    @property
    def variable(self) -> str:
        """The environment variable: `allowed_lateness_us` is read from `ASHI_ALLOWED_LATENESS`."""
        return PREFIX + self.field.removesuffix("_us").upper()


def setting(
    parse: Callable[[str], Any],
    default: str | None,
    text: str,
    *,
    secret: bool = False,
    when_unset: str = "not set",
) -> Mapping[str, Setting]:
    """What makes a field of a dataclass a setting: its `metadata`. The arguments are those of `Setting`."""
    return {_KEY: Setting("", parse, default, text, secret, when_unset)}


def settings_of(declaring: type) -> tuple[Setting, ...]:
    """The settings that are the fields of a dataclass, in their order."""
    return tuple(replace(field.metadata[_KEY], field=field.name) for field in fields(declaring))
