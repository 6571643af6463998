"""The `ashi` command. Also `python -m ashi_cli.main`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from ashi import __version__
from ashi.contracts.errors import EXIT_INTERRUPTED, AshiError
from ashi.runtime.settings.parsers import redact_url
from ashi_cli.commands import ASHI
from ashi_cli.extras import require_extras
from ashi_cli.parser import read_command_line

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_BROKEN_PIPE: Final = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status; errors go to stderr in words.

    Raises SystemExit (2) for wrong usage, as argparse does.
    """
    chosen = read_command_line(ASHI, __version__, argv)
    try:
        require_extras(chosen.name)
        status = chosen.command.call(chosen.values)
        sys.stdout.flush()
    except AshiError as error:
        print(f"ashi: {redact_url(str(error))}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever reads our output has had enough (`| head`). Python would complain at exit when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return status


if __name__ == "__main__":
    sys.exit(main())
