"""The text of `docs/settings.md`: every setting."""

from __future__ import annotations

from ashi.runtime.settings.catalogue import GROUPS


def settings_document() -> str:
    """The text of `docs/settings.md`."""
    lines = [
        "<!-- Generated: python -m ashi.runtime.settings > docs/settings.md -->",
        "# Settings",
        "",
        "All are environment variables; one that is empty counts as not set. Durations are a whole number and a unit:",
        "`500ms`, `2s`, `15m`, `6h`, `1d`. A secret can also be given in a file: put its path into the variable whose",
        "name ends in `_FILE`. When that file is replaced, new connections are made with what it holds then, all but",
        "those of `ASHI_STORAGE`. A value that is wrong stops the process before it does anything, with exit status 2.",
    ]
    for title, settings in GROUPS.items():
        lines += ["", f"## {title}", "", "| variable | default | meaning |", "|---|---|---|"]
        for setting in settings:
            names = f"`{setting.variable}`" + (f", `{setting.variable}_FILE`" if setting.secret else "")
            default = setting.when_unset if not setting.default else f"`{setting.default}`"
            lines.append(f"| {names} | {default} | {setting.text} |")
    return "\n".join(lines) + "\n"
