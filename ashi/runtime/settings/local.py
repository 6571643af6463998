"""The settings of the one-machine stack. The `ashi` command reads them itself; here is their documentation."""

from __future__ import annotations

from typing import Final

from ashi.runtime.settings.declare import Setting

LOCAL_SETTINGS: Final = (
    Setting(
        "cache_dir",
        None,
        None,
        "Directory that the `ashi` command keeps the jars of the local broker in.",
        when_unset="`$XDG_CACHE_HOME/ashi`, else `~/.cache/ashi`",
    ),
    Setting(
        "java",
        None,
        None,
        "Java program (17 or newer) to run the local broker with.",
        when_unset="the one installed with Ashi",
    ),
)
