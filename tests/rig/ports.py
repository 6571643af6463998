"""Ports for servers that go away and come back at the same address."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection

from servers.free_ports import LAST


def quiet_port(rng: random.Random, but: Collection[int] = ()) -> int:
    """A free port below those that the system gives to clients: one could take it while a server of ours is away.

    It is none of `free_ports` either.
    """
    while True:
        port = rng.randint(LAST, 32_767)
        if port in but:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def quiet_ports(rng: random.Random, count: int) -> list[int]:
    """So many of them, all different."""
    ports: list[int] = []
    while len(ports) < count:
        ports.append(quiet_port(rng, but=ports))
    return ports
