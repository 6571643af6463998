"""Commands are declared once: what the parser makes of a function's parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from ashi_cli.commands import ASHI
from ashi_cli.declaration import Command, OneOf, Option, Positional
from ashi_cli.parser import read_command_line

ONE_OF = OneOf()
ONE_MUST = OneOf(required=True)
seen: dict[str, Any] = {}


def record(
    *,
    speed: Annotated[float, Option("how fast")],
    target: Annotated[Path, Positional("where to")],
    others: Annotated[Sequence[Path], Positional("and where else")] = (),
    count: Annotated[int | None, Option("how often", metavar="N")] = None,
    dry_run: Annotated[bool, Option("only say so")] = False,
    names: Annotated[Sequence[str], Option("who", flag="--name", parse=str.upper)] = (),
    mode: Annotated[Literal["slow", "fast"], Option("how")] = "slow",
    trades: Annotated[str | None, Option("of what", bare="topic")] = None,
    note: str = "none",
) -> int:
    seen.update(locals())
    return 7


@dataclass(frozen=True, kw_only=True)
class Options:
    inner: Annotated[int, Option("a number")] = 3
    quick: Annotated[bool, Option("a switch", one_of=ONE_OF)] = False
    slow: Annotated[bool, Option("a switch", one_of=ONE_OF)] = False
    here: Annotated[str | None, Option("a place", one_of=ONE_MUST)] = None
    there: Annotated[str | None, Option("a place", one_of=ONE_MUST)] = None


def with_options(options: Options) -> int:
    seen["options"] = options
    return 0


PROGRAM = Command(
    "prog",
    "for a test",
    actions=(
        Command("record", "write down", record, given={"note": "given"}),
        Command("nested", "has more", record, given={"speed": 1.0, "target": Path("t")}, actions=(
            Command("deep", "takes options", with_options, options=Options),
        )),
    ),
)  # fmt: skip


def run(line: str) -> Mapping[str, Any]:
    seen.clear()
    chosen = read_command_line(PROGRAM, "1", line.split())
    seen["status"] = chosen.command.call(chosen.values)
    seen["command"] = chosen.name
    return seen


def test_values_come_by_name_and_in_their_types() -> None:
    assert run("record a b c --speed 2 --count=3 --dry-run --name x --name y --mode fast --trades lake:") == {
        "target": Path("a"),
        "others": [Path("b"), Path("c")],
        "speed": 2.0,
        "count": 3,
        "dry_run": True,
        "names": ["X", "Y"],
        "mode": "fast",
        "trades": "lake:",
        "note": "given",
        "status": 7,
        "command": "record",
    }


def test_what_is_not_written_is_the_default() -> None:
    values = dict(run("record --speed 2 --trades -- a"))
    assert values.pop("trades") == "topic"
    assert values.pop("speed") == 2.0
    assert values == {
        "target": Path("a"),
        "others": [],
        "count": None,
        "dry_run": False,
        "names": [],
        "mode": "slow",
        "note": "given",
        "status": 7,
        "command": "record",
    }


def test_values_of_one_command_line_do_not_stay_for_the_next() -> None:
    run("record a --speed 1 --name x")
    assert run("record a --speed 1")["names"] == []


def test_a_dataclass_of_options_is_given_whole() -> None:
    run("nested deep --quick --there x")
    assert seen == {"options": Options(quick=True, there="x"), "status": 0, "command": "nested deep"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("record a", "prog record: the following arguments are required: --speed"),
        ("record --speed 1", "prog record: the following arguments are required: TARGET"),
        ("record a --speed x", "prog record: argument --speed: invalid float value: 'x'"),
        ("record a --speed 1 --count x", "prog record: argument --count: invalid int value: 'x'"),
        ("record a --speed 1 --mode hasty", "argument --mode: invalid choice: 'hasty'"),
        ("record a --speed 1 --dry", "prog: unrecognized arguments: --dry"),
        ("nested deep --quick --slow --here x", "argument --slow: not allowed with argument --quick"),
        ("nested deep", "one of the arguments --here --there is required"),
        ("nested deep --here a --there b", "argument --there: not allowed with argument --here"),
        ("record a --speed postgresql://ashi:hunter2@h/db", "'postgresql://ashi:***@h/db'"),
    ],
)
def test_errors_are_argparses_in_one_line(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        run(line)
    err = capsys.readouterr().err
    assert ending.value.code == 2
    assert message in err
    assert err.endswith("--help`)\n")
    assert err.count("\n") == 1
    assert "hunter2" not in err


def every_command(command: Command) -> list[Command]:
    return [command, *(found for action in command.actions for found in every_command(action))]


def test_every_parameter_of_every_command_is_declared_or_given() -> None:
    commands = [command for command in every_command(ASHI) if command.run is not None]
    assert len(commands) == 37
    for command in commands:
        declaring = command.options or command.run
        names = {name for name in declaring.__annotations__ if name != "return"}
        assert {parameter.name for parameter in command.parameters()} == names - set(command.given), command.name
