"""`ashi strategy`, as far as it needs no Kafka."""

from __future__ import annotations

import pytest

from ashi_cli.main import main


def test_the_strategies_that_there_are_are_listed_with_their_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategy", "list"]) == 0
    listed = capsys.readouterr().out
    assert "ma_cross\n" in listed
    assert "  timeframes: 5m, 1h\n" in listed
    assert "  parameters: fast=9, slow=21\n" in listed


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ma_cros", "--symbol", "sim:A"], "ma_cros"),
        (["ma_cross"], "symbol"),
        (["ma_cross", "--symbol", "sim:A", "--fast", "21"], "1 < fast < slow"),
        (["ma_cross", "--symbol", "sim:A", "--fast", "9", "--param", "fast=9"], "a parameter is given twice"),
        (["ma_cross", "--symbol", "sim:A", "--param", "length=9"], "length"),
        (["ma_cross", "--symbol", "sim:A", "--warm-from", "mysql://host/db"], "store"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_starts(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["strategy", "run", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_a_parameter_is_a_name_and_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["strategy", "run", "ma_cross", "--param", "fast"])
    assert ended.value.code == 2
    assert "'fast' is not NAME=VALUE, such as length=20" in capsys.readouterr().err
