"""Where the library is not there, or not wanted, Python does the same; and says so where nobody asked for that."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ashi_aggregate.native import kernel, library
from ashi_aggregate.native.kernel import Kernel


@pytest.mark.parametrize("content", [None, b"", b"no library at all"])
def test_a_library_that_cannot_be_loaded_is_told_once_and_done_without(monkeypatch, tmp_path: Path, content):
    path = tmp_path / "kernel.lib"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(library, "PATH", path)
    library.load_kernel.cache_clear()
    try:
        with capture_logs() as logs:
            assert library.load_kernel() is None
            assert library.load_kernel() is None
    finally:
        library.load_kernel.cache_clear()
    [entry] = logs
    assert entry["log_level"] == "warning"
    assert "there is no native fold for this machine" in entry["event"]


def test_a_library_of_other_sources_is_not_called(monkeypatch):
    monkeypatch.setattr(kernel, "INTERFACE", -1)
    with pytest.raises(OSError, match=r"interface \d+, and -1 is wanted.*build it again"):
        Kernel(library.PATH)


def test_the_library_of_this_machine_is_loaded():
    assert isinstance(library.load_kernel(), Kernel)
