"""The script in docs/series.md, run as it stands there, prints what stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/series.md").read_text(encoding="utf-8")


def test_the_script_of_the_page_prints_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    script, printed = re.findall(r"```python\n(.*?)```\n\n((?:    [^\n]*\n)+)", PAGE, re.DOTALL)[0]
    exec(compile(script, "docs/series.md", "exec"), {})
    assert capsys.readouterr().out == re.sub(r"^    ", "", printed, flags=re.MULTILINE)
