"""Hosts on this machine: network namespaces at one switch. Their links are cut, and lose what is sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from multihost.isolation import CommandError, NotAllowedError, run

NETWORK: Final = "10.66.0"
"""Nobody's else, as the switch too is in a namespace of its own."""
HERE: Final = f"{NETWORK}.1"
"""The harness's own address, at which the venue and PostgreSQL are found."""
_FIRST = 10
_TABLE = "rehearsal"
_SWITCH = "switch"
_PROBE = "probe"
_RULES = """chain lose {
    type filter hook input priority 0;
    numgen random mod 100 < 5 drop
}
chain new_connections {
    type nat hook prerouting priority dstnat;
    tcp dport 1 redirect to :2
}"""


def require() -> None:
    """Raises NotAllowedError where this kernel has no hosts, switches or rules for us."""
    try:
        with Network().add(_PROBE).filtering(_RULES):
            pass
        run("ip", "netns", "delete", _PROBE)
        run("ip", "link", "delete", _SWITCH)
    except CommandError as error:
        raise NotAllowedError(f"this machine lets nobody have hosts of his own: {error}") from error


class Host(NamedTuple):
    """One of them."""

    name: str
    address: str

    @property
    def begin_with(self) -> tuple[str, ...]:
        """What the command line of a process begins with that runs there."""
        return ("nsenter", f"--net=/run/netns/{self.name}")

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Its cable is pulled, and put in again at the end of the block: nobody is told, packets are gone."""
        run("ip", "link", "set", self.name, "down")
        try:
            yield
        finally:
            run("ip", "link", "set", self.name, "up")

    @contextmanager
    def filtering(self, rules: str) -> Iterator[None]:
        """Rules of nft that hold there during the block: chains."""
        run(*self.begin_with, "nft", "-f", "-", given=f"table ip {_TABLE} {{\n{rules}\n}}\n")
        try:
            yield
        finally:
            run(*self.begin_with, "nft", "delete", "table", "ip", _TABLE)


class Network:
    """The switch, in the namespace of this process, and the hosts at it."""

    def __init__(self) -> None:
        self._count = 0
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", _SWITCH, "type", "bridge")
        run("ip", "address", "add", f"{HERE}/24", "dev", _SWITCH)
        run("ip", "link", "set", _SWITCH, "up")

    def add(self, name: str) -> Host:
        """A new host at the switch; its link on the switch's side has its name, which may have 15 characters."""
        host = Host(name, f"{NETWORK}.{_FIRST + self._count}")
        self._count += 1
        run("ip", "netns", "add", name)
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", name, "master", _SWITCH, "up")
        run(*host.begin_with, "ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        run(*host.begin_with, "ip", "link", "set", "eth0", "up")
        run(*host.begin_with, "ip", "link", "set", "lo", "up")
        return host

    def serve(self, port: int) -> None:
        """Let the hosts reach what listens on this port of 127.0.0.1 here, at `HERE`."""
        Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")
        rule = f"iifname {_SWITCH} ip daddr {HERE} tcp dport {port} dnat to 127.0.0.1:{port}"
        chain = f"chain serve-{port} {{\ntype nat hook prerouting priority dstnat;\n{rule}\n}}"
        run("nft", "-f", "-", given=f"table ip {_TABLE} {{\n{chain}\n}}\n")
