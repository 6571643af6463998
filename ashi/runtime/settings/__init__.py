"""The settings of a process: environment variables, declared once, read and checked in one place."""

from ashi.runtime.settings.declare import Secret, SettingsError
from ashi.runtime.settings.environment import Settings

__all__ = ["Secret", "Settings", "SettingsError"]
