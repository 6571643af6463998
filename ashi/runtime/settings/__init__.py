"""The settings of a process: environment variables, declared once, read and checked in one place."""

from ashi.runtime.settings.environment import Settings, SettingsError

__all__ = ["Settings", "SettingsError"]
