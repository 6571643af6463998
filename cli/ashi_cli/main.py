"""The `ashi` command. Also `python -m ashi_cli.main`."""

from __future__ import annotations

import resource
import sys
from typing import TYPE_CHECKING

from ashi import __version__
from ashi.contracts.errors import EXIT_INTERRUPTED, AshiError
from ashi.runtime.descriptors import descriptors_behind
from ashi.runtime.library_logs import limit_last_resort
from ashi.runtime.settings.parsers import redact_url
from ashi_cli.commands import ASHI
from ashi_cli.extras import require_extras
from ashi_cli.parser import read_command_line
from ashi_cli.standard_streams import (
    OutputClosedError,
    OutputError,
    complain,
    give_up_stdout,
    prepare_streams,
    settle_stderr,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status; errors go to stderr in words.

    Raises SystemExit (2) for wrong usage, as argparse does.
    """
    prepare_streams()
    leave_no_core()
    repetitions = limit_last_resort(lambda sentence, count, _: complain(f"{sentence}: {count} of them are not shown"))
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()  # also after SystemExit: help and the version
    except OutputClosedError as error:
        give_up_stdout()
        return error.exit_status
    except OutputError as error:
        give_up_stdout()
        complain(str(error))
        return error.exit_status
    finally:
        repetitions.close()
        settle_stderr()


def leave_no_core() -> None:
    """A process that crashes writes none of its memory, passwords among it, to a disk, nor does what it has started.

    Only the limit that holds is lowered: whoever looks for the cause of a crash raises it again by
    `prlimit --core=unlimited --pid`, while the process runs.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))


def _run(argv: Sequence[str] | None) -> int:
    chosen = read_command_line(ASHI, __version__, argv)
    try:
        require_extras(chosen.name)
        return chosen.command.call(chosen.values)
    except OutputError:
        raise
    except AshiError as error:
        complain(redact_url(descriptors_behind(error) or str(error)))
        return error.exit_status
    except OSError as error:
        if (lacking := descriptors_behind(error)) is None:
            raise
        complain(redact_url(lacking))
        return 1
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
