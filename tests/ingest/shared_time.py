"""Time that passes as fast as the work of one event loop is done: an hour of a quiet feed takes seconds.

All parties of a test (a simulated venue, a worker, a Kafka in memory) share one loop and real sockets of this machine.
While any of them has something to do, the clocks stand still; when none has, they go on to the next moment that
somebody waits for. So nothing depends on how busy the machine is.
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

T = TypeVar("T")

LONGEST_STEP_S = 0.05
"""The clocks never go on further at once, because the end of a connection may take a moment to arrive."""
ENDS_SEEN = 10
STEPS_A_GRACE = 10
GRACE_S = 0.00005
"""Really waited for at so many steps after a connection was ended, as its other side may not know at once, and once in
so many steps for whatever else a busy kernel has not delivered."""
ON_ITS_WAY_S = 0.1
"""Really waited for, once, where what was sent has not arrived: a busy kernel does not deliver at once."""
REAL_BOUND_S = 0.2
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


class Traffic:
    """What is on its way between the sockets of this process, all of which have both their ends in it.

    Attributes:
        on_its_way: bytes, and connections, that one side has sent and the other has not taken.
        graces: at so many steps more the end of a connection may be on its way.

    """

    def __init__(self) -> None:
        self.on_its_way = 0
        self.graces = 0
        self._left = 0  # will not arrive: the connection was reset, or whoever should read it does not

    @property
    def is_awaited(self) -> bool:
        """Whether something should arrive now."""
        self._left = min(self._left, self.on_its_way)
        return self.on_its_way > self._left

    def give_up(self) -> None:
        """What is on its way now was waited for and has not arrived."""
        self._left = self.on_its_way

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Count what all sockets do."""

        def count(name: str, amount: Callable[[Any], int], *, ends: bool = False) -> None:
            real = getattr(socket.socket, name)

            def counted(of: socket.socket, *arguments: Any) -> Any:
                result = None
                try:
                    result = real(of, *arguments)
                except BlockingIOError:  # of `connect` that is how it begins
                    if name == "connect":
                        self.on_its_way += 1
                    raise
                self.on_its_way = max(self.on_its_way + amount(result), 0)
                self.graces = ENDS_SEEN if ends else self.graces
                return result

            inherited = name not in vars(socket.socket)
            setattr(socket.socket, name, counted)
            undo.callback(*((delattr, socket.socket, name) if inherited else (setattr, socket.socket, name, real)))

        with contextlib.ExitStack() as undo:
            for name in ("send", "sendmsg"):
                count(name, lambda sent: sent)
            count("recv", lambda received: -len(received))
            count("recv_into", lambda length: -length)
            count("connect", lambda _: 1)
            count("accept", lambda _: -1)
            for name in ("close", "shutdown"):
                count(name, lambda _: 0, ends=True)
            yield


class _Selector(selectors.SelectSelector):
    """Where the loop would sleep it lets the clock go on instead, unless something comes over a socket."""

    def __init__(self, clock: VirtualClock, traffic: Traffic) -> None:
        super().__init__()
        self._clock = clock
        self._traffic = traffic
        self._steps = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if timeout is None:  # nobody waits for a time: only a thread can have something to say
            return super().select(REAL_BOUND_S)
        if self._traffic.is_awaited:
            if events := super().select(ON_ITS_WAY_S):
                return events
            self._traffic.give_up()
        self._steps += 1
        if self._traffic.graces or self._steps % STEPS_A_GRACE == 0:
            self._traffic.graces = max(self._traffic.graces - 1, 0)
            if events := super().select(GRACE_S):
                return events
        self._clock.advance(min(timeout, LONGEST_STEP_S))
        return []


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: VirtualClock, traffic: Traffic) -> None:
        self._virtual = clock
        super().__init__(_Selector(clock, traffic))

    def time(self) -> float:
        return self._virtual.monotonic()


def run_virtually(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a scenario in virtual time. Everything that asks module `time` within it is told that time."""
    clock, traffic = VirtualClock(), Traffic()
    with _patched(clock), traffic.watched(), asyncio.Runner(loop_factory=lambda: _Loop(clock, traffic)) as runner:
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
