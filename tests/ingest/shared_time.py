"""Time that passes as fast as the work of one event loop is done: an hour of a quiet feed takes seconds.

All parties of a test (a simulated venue, a worker, a Kafka in memory) share one loop, and a network that is in it too:
what one of them sends has arrived before the loop does anything else. While any of them has something to do, the clocks
stand still; when none has, they go on to the next moment that somebody waits for. So nothing depends on how busy the
machine is.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import selectors
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from network_in_memory import Network

T = TypeVar("T")

PATCHED_PACKAGES = ("ashi.", "ashi_ingest.", "ashi_simulator.")


class VirtualClock:
    """What replaces the functions of module `time`."""

    def __init__(self) -> None:
        self.passed_ns = 0
        self._wall_ns = time.time_ns()
        self._monotonic_ns = time.monotonic_ns()

    def advance(self, seconds: float) -> None:
        self.passed_ns += max(int(seconds * 1e9), 1000)

    def time_ns(self) -> int:
        return self._wall_ns + self.passed_ns

    def time(self) -> float:
        return self.time_ns() / 1e9

    def monotonic_ns(self) -> int:
        return self._monotonic_ns + self.passed_ns

    def monotonic(self) -> float:
        return self.monotonic_ns() / 1e9

    def functions(self) -> dict[Callable[[], Any], Callable[[], Any]]:
        """What stands for each real function."""
        return {
            time.time_ns: self.time_ns,
            time.time: self.time,
            time.monotonic_ns: self.monotonic_ns,
            time.monotonic: self.monotonic,
        }


class _Selector(selectors.SelectSelector):
    """Where the loop would sleep it lets the clock go on instead."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits, and for no time: this would never end")
        if timeout > 0:
            self._clock.advance(timeout)
        return []


class _Loop(asyncio.SelectorEventLoop):
    """Its clock is virtual, and so is its network."""

    def __init__(self, clock: VirtualClock) -> None:
        self._virtual = clock
        self._network = Network()
        self._dialled: WeakKeyDictionary[socket.socket, tuple[str, int]] = WeakKeyDictionary()
        super().__init__(_Selector(clock))

    def time(self) -> float:
        return self._virtual.monotonic()

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """At once: while a thread waited for its turn, time would go on."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        return self._network.listen(protocol_factory, (host, port))

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Whoever brings a socket has it connected first, and made a transport then."""
        self._network.check(address)
        self._dialled[sock] = address

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, *, sock: Any = None, **_: Any
    ) -> Any:
        if sock is not None:
            host, port = self._dialled.pop(sock)
            sock.close()
        made = self._network.connect(self, protocol_factory, (host, port))
        await asyncio.sleep(0)  # until both sides know
        return made


def run_virtually(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a scenario in virtual time. Everything that asks module `time` within it is told that time."""
    clock = VirtualClock()
    with _patched(clock), asyncio.Runner(loop_factory=lambda: _Loop(clock)) as runner:
        return runner.run(main())


@contextlib.contextmanager
def _patched(clock: VirtualClock) -> Iterator[None]:
    virtual = clock.functions()
    with contextlib.ExitStack() as undo:
        for function in _with_defaults():
            _replace_defaults(function, virtual, undo)
        for real, replacement in virtual.items():
            setattr(time, real.__name__, replacement)
            undo.callback(setattr, time, real.__name__, real)
        yield


def _with_defaults() -> Iterator[Any]:
    """All functions and methods of ours, because a clock may be bound as the default of an argument."""
    for name, module in list(sys.modules.items()):
        if name.startswith(PATCHED_PACKAGES):
            for member in vars(module).values():
                if inspect.isfunction(member):
                    yield member
                elif inspect.isclass(member) and member.__module__ == name:
                    yield from filter(inspect.isfunction, vars(member).values())


def _replace_defaults(function: Any, virtual: dict[Any, Any], undo: contextlib.ExitStack) -> None:
    before, keywords = function.__defaults__, function.__kwdefaults__
    if before and any(_is_in(value, virtual) for value in before):
        function.__defaults__ = tuple(virtual[value] if _is_in(value, virtual) else value for value in before)
        undo.callback(setattr, function, "__defaults__", before)
    if keywords and any(_is_in(value, virtual) for value in keywords.values()):
        function.__kwdefaults__ = {
            name: virtual[value] if _is_in(value, virtual) else value for name, value in keywords.items()
        }
        undo.callback(setattr, function, "__kwdefaults__", keywords)


def _is_in(value: Any, virtual: dict[Any, Any]) -> bool:
    return inspect.isbuiltin(value) and value in virtual
