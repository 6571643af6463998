"""Standard streams as they come: closed by whoever started us, full, or read by somebody who has had enough."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final

from ashi.contracts.errors import AshiError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_STREAMS: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
_STDOUT: Final = 1
_STDERR: Final = 2


class OutputError(AshiError):
    """Standard output cannot be written. No OSError, which argparse would swallow and others take for their own."""


class OutputClosedError(OutputError):
    """Whoever read our output has had enough (`| head`)."""

    exit_status: ClassVar[int] = 141
    """As shells count SIGPIPE, which Python ignores."""


class _Output(io.FileIO):
    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except BlockingIOError:
            raise
        except BrokenPipeError:
            raise OutputClosedError("nobody reads standard output any more") from None
        except OSError as error:
            reason = os.strerror(error.errno or errno.EIO)
            raise OutputError(
                f"standard output cannot be written ({reason}), so what the command says is missing or incomplete: "
                "free space there or name another file"
            ) from None


def prepare_streams() -> None:
    """Before anything is opened or printed.

    A stream that was closed when this process was started, as by `>&-`, becomes /dev/null: else the next file or
    socket that is opened gets its number, and whatever a library or a child prints goes there. What cannot be written
    to standard output raises OutputError.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the least number that is free, which is this one
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - for as long as we live
    plain = sys.stdout
    if isinstance(plain, io.TextIOWrapper) and plain is sys.__stdout__:  # not one that a test has put there
        raw = _Output(_STDOUT, "w", closefd=False)
        # Python started with -u has no buffer either.
        binary = raw if isinstance(plain.buffer, io.RawIOBase) else io.BufferedWriter(raw)
        sys.stdout = io.TextIOWrapper(
            binary,
            encoding=plain.encoding,
            errors=plain.errors,
            line_buffering=plain.line_buffering,
            write_through=plain.write_through,
        )


def give_up_stdout() -> None:
    """Forget what was printed and cannot be written: Python would try again, and complain, when it exits."""
    _forget(_STDOUT)


def settle_stderr() -> None:
    """Likewise for what was to be said there, so that the exit status stays what it is."""
    try:
        sys.stderr.flush()
    except OSError:
        _forget(_STDERR)


def complain(sentence: str) -> None:
    """Say on stderr what went wrong. If even that cannot be written, the exit status has to say it."""
    with suppress(OSError):
        print(f"ashi: {sentence}", file=sys.stderr)


def _forget(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
