"""`ashi doctor`: whether all is set up as it must be."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Final

from ashi_cli.declaration import Command, Option
from ashi_cli.extras import require_extras
from ashi_cli.shared_options import settings_with


def doctor(
    *,
    stages: Annotated[
        Sequence[str],
        Option(
            "what this user is meant to run, so that a right that is missing is an error: ingest, replay, aggregate, "
            "sink, sink-trades, strategy, chart, client; repeatable (default: the rights of all are looked at)",
            flag="--stage",
            metavar="STAGE",
        ),
    ] = (),
    storage: Annotated[
        str | None, Option("the store to look at (default: ASHI_STORAGE; none if that is not set)", metavar="URL")
    ] = None,
    quiet: Annotated[bool, Option("only what is not as it must be")] = False,
    json: Annotated[bool, Option("one line of JSON (docs/status.md)")] = False,
) -> int:
    """`ashi doctor`."""
    require_extras("doctor")
    settings = settings_with(storage)
    named = storage is not None or any(os.environ.get(name) for name in ("ASHI_STORAGE", "ASHI_STORAGE_FILE"))
    if named:
        require_extras("doctor", store=settings.storage)
    from ashi_operations.doctor.run import run_doctor

    return run_doctor(settings, stages=stages, store=named, as_json=json, quiet=quiet)


DOCTOR: Final = Command(
    name="doctor",
    text="check that Kafka, topics, rights, workers, clocks and the store are as they must be, and say what to run",
    run=doctor,
    epilog="""\
examples:
  ashi doctor
  ashi doctor --stage sink --storage postgresql://ashi:secret@db/market
  ashi doctor --quiet
  ashi doctor --json | jq '.checks[] | select(.state != "ok")'

It changes nothing, and asks Kafka and the store, no process of Ashi. Run it where, as whom and with what settings the
stage runs that it is to look at (user, certificates, ASHI_TIMEFRAMES, …). Passwords are never shown.
Exit status 0: all is well; 1: something is to be looked at, or could not be found out; 2: something does not work.""",
)
