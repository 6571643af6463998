"""Ports for servers that are told theirs before they listen, or that come back at the same one."""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections.abc import Iterator

HOST = "127.0.0.1"
FIRST, LAST = 20_000, 30_000
"""Below those that systems give to clients, and to whoever asks for any (Linux from 32,768 on): between our look and a
server's bind, seconds later, such a one could be taken."""
_EACH = 500
"""Of a process that runs tests, so that no two give the same."""


def _own() -> Iterator[int]:
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = FIRST + number * _EACH % (LAST - FIRST)
    ports = list(range(first, first + _EACH))
    start = random.SystemRandom().randrange(_EACH)  # another run of the tests may go on beside this one
    return itertools.cycle(ports[start:] + ports[:start])


_ports = _own()


def free_port() -> int:
    """A port of this machine where nobody listens, and which nobody else is given by this function for a while."""
    for port in itertools.islice(_ports, _EACH):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        return port
    raise AssertionError(f"all of {_EACH} ports are taken, the last {port}")


def free_ports(count: int) -> list[int]:
    """So many of them, all different."""
    return [free_port() for _ in range(count)]
