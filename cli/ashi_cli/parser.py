"""argparse's parser of the declared commands.

Why not cyclopts or another framework that reads such declarations: our errors are argparse's, to the letter, so each
of theirs would have to be said again; and they import rich to say anything, which takes longer than all that
`ashi --version` does.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from ashi.runtime.settings.parsers import redact_url
from ashi_cli.declaration import Option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ashi_cli.declaration import Command, OneOf, Parameter

_CHOSEN: Final = "chosen command"
_CONVERTED: Final = (int, float, Path)


class Chosen(NamedTuple):
    """The command that a command line names, with the values of its parameters.

    `name` is that of the command and its action, such as `topics create`.
    """

    name: str
    command: Command
    values: Mapping[str, Any]


class Parser(argparse.ArgumentParser):
    """Errors in one line, with the command that explains more; help keeps its line breaks."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with status 2."""
        self.exit(2, f"{self.prog}: {redact_url(message)} (see `{self.prog} --help`)\n")


def read_command_line(program: Command, version: str, arguments: Sequence[str] | None) -> Chosen:
    """The command of `program` that is to be run. `arguments`: None for those of this process.

    Raises SystemExit: 2 for wrong usage, 0 when only help or the version was asked for.
    """
    parser = Parser(prog=program.name, description=program.about, epilog=program.epilog)
    parser.add_argument("--version", action="version", version=f"{program.name} {version}")
    _declare(parser, program, ())
    written = vars(parser.parse_args(arguments))
    path, command = written[_CHOSEN]
    values = {parameter.name: written[parameter.name] for parameter in command.parameters()}
    return Chosen(" ".join(path), command, values)


def _declare(parser: argparse.ArgumentParser, command: Command, path: tuple[str, ...]) -> None:
    parser.set_defaults(**{_CHOSEN: (path, command)})
    groups: dict[OneOf, argparse._ActionsContainer] = {}
    for parameter in command.parameters():
        one_of = parameter.argument.one_of if isinstance(parameter.argument, Option) else None
        if one_of is None:
            _add(parser, parameter)
            continue
        if one_of not in groups:
            groups[one_of] = parser.add_mutually_exclusive_group(required=one_of.required)
        _add(groups[one_of], parameter)
    if command.actions:
        actions = parser.add_subparsers(metavar=command.metavar, required=command.run is None)
        for action in command.actions:
            about = action.about or f"{action.text[0].upper()}{action.text[1:]}."
            below = actions.add_parser(action.name, help=action.text, description=about, epilog=action.epilog)
            _declare(below, action, (*path, action.name))


def _add(parser: argparse._ActionsContainer, parameter: Parameter) -> None:
    if isinstance(parameter.argument, Option):
        _add_option(parser, parameter, parameter.argument)
    else:
        _add_positional(parser, parameter)


def _add_option(parser: argparse._ActionsContainer, parameter: Parameter, option: Option) -> None:
    flag = option.flag or "--" + parameter.name.replace("_", "-")
    if parameter.kind is bool:
        parser.add_argument(flag, dest=parameter.name, action="store_true", help=option.text)
        return
    settings = _settings(parameter)
    if parameter.many:
        settings["action"] = "append"
    if option.bare is not None:
        settings |= {"nargs": "?", "const": option.bare}
    parser.add_argument(flag, dest=parameter.name, required=parameter.required, **settings)


def _add_positional(parser: argparse._ActionsContainer, parameter: Parameter) -> None:
    settings = _settings(parameter)
    if parameter.many:
        del settings["default"]  # of none argparse makes an empty list, and tells of it as it always has
        settings["nargs"] = "+" if parameter.required else "*"
    elif not parameter.required:
        settings["nargs"] = "?"
    parser.add_argument(parameter.name, **settings)


def _settings(parameter: Parameter) -> dict[str, Any]:
    argument = parameter.argument
    settings: dict[str, Any] = {
        "metavar": argument.metavar or parameter.name.upper(),
        "help": argument.text,
        "default": [] if parameter.many else parameter.default,
    }
    if parameter.choices is not None:
        settings["choices"] = parameter.choices
        if argument.metavar is None:
            del settings["metavar"]  # the help then lists the choices
    convert = argument.parse or (parameter.kind if parameter.kind in _CONVERTED else None)
    if convert is not None:
        settings["type"] = convert
    return settings
