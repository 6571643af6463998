"""What the parsers of all commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from ashi.runtime.settings.parsers import redact_url
from ashi_cli.arguments import types
from ashi_ingest.venues.registry import VENUES

if TYPE_CHECKING:
    from typing import TypeAlias

    Group: TypeAlias = "argparse._SubParsersAction[Parser]"  # it has no public name

LIVE_VENUES: Final = {name: (venue.title, venue.example_market) for name, venue in VENUES.items()}
"""Each venue's name in prose and one of its markets, for the help."""

WORKDIR: Final = Path(".ashi")
"""Where the commands keep the broker's files, under the current directory; the demo has a folder of its own in it."""


class Parser(argparse.ArgumentParser):
    """Errors in one line, with the command that explains more; help keeps its line breaks."""

    def __init__(self, **options: object) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with status 2."""
        self.exit(2, f"{self.prog}: {redact_url(message)} (see `{self.prog} --help`)\n")


def add_command(group: Group, name: str, text: str, examples: str = "") -> Parser:
    """A parser for one command: `text` in one sentence, examples below it."""
    epilog = f"examples:\n{examples}" if examples else None
    return group.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=epilog)


def add_storage(parser: argparse.ArgumentParser) -> None:
    """The option --storage, as all that write or read a store have it."""
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="such as sqlite:////absolute/path.db or postgresql://user:password@host/database (default: ASHI_STORAGE, "
        "else candles.db here)",
    )


def add_range(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """The options that choose windows: --from, --to, --symbol."""
    parser.add_argument(
        "--from",
        dest="begin_at",
        metavar="TIME",
        type=types.time,
        required=required,
        default=0,
        help="only windows that begin then or later (ISO 8601, UTC)",
    )
    parser.add_argument(
        "--to",
        dest="end_at",
        metavar="TIME",
        type=types.time,
        required=required,
        help="only windows that begin before that",
    )
    parser.add_argument("--symbol", metavar="SYMBOL", action="append", default=[], help="only this; repeatable")
