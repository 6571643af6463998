"""`ashi broker`: the one-machine Kafka."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

from ashi_cli import values
from ashi_cli.declaration import Command, Option
from ashi_cli.shared_options import WORKDIR

Workdir = Annotated[Path, Option("its files are in DIR/broker (default: %(default)s)", metavar="DIR")]


def start(
    *,
    workdir: Workdir = WORKDIR,
    port: Annotated[
        int | None, Option("port to serve on (default: any free one)", metavar="N", parse=values.port)
    ] = None,
) -> int:
    """`ashi broker start`: the address goes to stdout, in the form that a shell can evaluate."""
    from ashi_cli.onemachine.broker import Broker

    broker = Broker(workdir)
    broker.start(port=port, say=_say)
    print(f"export ASHI_KAFKA_BOOTSTRAP={broker.bootstrap}")
    return 0


def stop(*, workdir: Workdir = WORKDIR) -> int:
    """`ashi broker stop`."""
    from ashi_cli.onemachine.broker import Broker

    Broker(workdir).stop(say=_say)
    return 0


def status(*, workdir: Workdir = WORKDIR) -> int:
    """`ashi broker status`: an error when none runs."""
    from ashi_cli.onemachine.broker import Broker

    print(f"a broker runs on {Broker(workdir).bootstrap}")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)


BROKER: Final = Command(
    name="broker",
    text="manage a single-node Kafka on this machine (no action: show its status)",
    run=status,
    given={"workdir": WORKDIR},
    actions=(
        Command("start", "start it in the background", start, about="Start it and print its address."),
        Command("stop", "stop it; its topics stay", stop),
        Command("status", "say where it runs; exit status 1 if it does not", status),
    ),
    epilog="""\
examples:
  eval "$(ashi broker start)"
  ashi broker start --port 9092
  ashi broker stop""",
)
