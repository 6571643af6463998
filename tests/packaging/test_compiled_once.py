"""Processes that share the tests share the work of compiling them."""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.assertion import rewrite

from suite.compiled_once import compile_share


def kept(folder: Path) -> set[str]:
    return {path.name.partition(".")[0] for path in folder.rglob(f"*{rewrite.PYC_TAIL}")}


def test_each_process_compiles_its_share_of_what_is_asked_for_and_all_of_them_everything(
    tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {f"test_{number}" for number in range(5)}
    (tmp_path / "deeper").mkdir()
    for number, name in enumerate(sorted(names)):
        ((tmp_path / "deeper") if number % 2 else tmp_path).joinpath(f"{name}.py").write_text("assert 1 == 1\n")
    (tmp_path / "helper.py").write_text("")
    monkeypatch.setattr(pytestconfig, "args", [str(tmp_path), f"{tmp_path}/test_0.py::test_it"])
    shares = []
    for number in range(2):
        before = kept(tmp_path)
        compile_share(pytestconfig, number, 2)
        shares.append(kept(tmp_path) - before)
    assert [len(share) for share in shares] == [3, 2]
    assert shares[0] | shares[1] == names


def test_what_is_compiled_already_is_left(
    tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "test_it.py"
    module.write_text("assert 1 == 1\n")
    monkeypatch.setattr(pytestconfig, "args", [str(module)])
    compile_share(pytestconfig, 0, 1)

    def refuse(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(rewrite, "_rewrite_test", refuse)
    compile_share(pytestconfig, 0, 1)
    module.write_text("assert 2 == 2\n\n")
    with pytest.raises(AssertionError, match="compiled again"):
        compile_share(pytestconfig, 0, 1)
