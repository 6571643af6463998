"""The signals that tell a process which runs until it is told to stop, to stop."""

from __future__ import annotations

import signal


def stop_signals() -> list[signal.Signals]:
    """SIGTERM, SIGINT and SIGHUP: the last says that the terminal or the login is gone.

    SIGHUP is left out where it was ignored when we were started, as by nohup. SIGINT is not: who sends a worker a
    signal means it, also where it was ignored, as by a script's `ashi aggregate &`.
    """
    hangup = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
    return [signal.SIGTERM, signal.SIGINT, *hangup]
