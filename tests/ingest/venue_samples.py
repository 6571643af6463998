"""What a venue gives to be certified: its frames, rows and answers, as on the wire. See docs/adding-a-venue.md."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from repairs import NOW, Outcome, run_plan

from ashi.contracts.trade import Trade
from ashi_ingest.venues.base import ListedMarket, Request, Venue, VenueDescription
from ashi_ingest.venues.parsing import FrameParser
from ashi_ingest.venues.registry import VENUES

FIRST_MS = 1_746_018_540_000
"""When the samples begin: 2025-04-30T13:09:00Z, ms since 1970."""

certifying = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.differing_executors],  # each venue runs the tests by itself
)


@dataclass(frozen=True)
class Execution:
    """An execution, as far as every venue tells of one.

    `number`: grows by one from execution to execution; a venue that has ids uses it as the id. `at_ms`: ms since 1970.
    """

    number: int
    at_ms: int = FIRST_MS
    price: str = "5860832"
    size: str = "0.01"
    taker: Literal["buy", "sell"] = "buy"


class Listed(NamedTuple):
    """An execution as REST lists it: one row or several, the oldest first, as JSON."""

    execution: Execution
    rows: list[str]


class Refusal(NamedTuple):
    """A frame that refuses a subscription; whose, if it says so; whether subscribing again may succeed."""

    frame: bytes
    request_id: int | None
    retryable: bool


@dataclass(frozen=True)
class Documented:
    """What the venue's documentation allows. Pairs are a number and the seconds it is allowed in; None: it is silent.

    `requests`: of weight 1, over REST. `messages`: that we send. `connections`: attempts. `markets`: of a connection.
    `lifetime_s`: after which the venue closes a connection.
    """

    requests: tuple[int, float] | None = None
    messages: tuple[int, float] | None = None
    connections: tuple[int, float] | None = None
    markets: int | None = None
    lifetime_s: float | None = None


class VenueSamples(ABC):
    """What a subclass gives. Frames and answers should be of recordings or of the venue's documentation."""

    name: ClassVar[str]
    """As in the registry."""
    market: ClassVar[str]
    documented: ClassVar[Documented]
    akin: ClassVar[frozenset[str]] = frozenset()
    """Other venues that write their trades in the same way."""
    recorded_frames: ClassVar[Sequence[bytes]]
    """With trades: recorded, or else the examples of the venue's documentation."""
    other_frames: ClassVar[Sequence[bytes]]
    """Without trades and in order: order books, tickers."""
    subscription: ClassVar[str]
    """The message that subscribes to `market`, with id 7 if it has one, as the venue documents it."""
    unsubscription: ClassVar[str]
    """Likewise the message that ends that subscription."""
    refusals: ClassVar[Sequence[Refusal]]
    closings: ClassVar[Sequence[bytes]] = ()
    """Frames that announce that the venue will close the connection."""
    markets_answer: ClassVar[bytes]
    markets_listed: ClassVar[Sequence[ListedMarket]]
    error_answers: ClassVar[Sequence[bytes]]
    """How REST says that something was wrong, with HTTP status 200 or without: nothing that could pass for trades."""

    def acknowledgment(self, request_id: int) -> bytes | None:
        """The frame that accepts a subscription; None when the venue has none."""
        return None

    @abstractmethod
    def frames(self, market: str, executions: Sequence[Execution]) -> list[bytes]:
        """The frames of one connection that carry these executions, in their order."""

    @abstractmethod
    def rows(self, execution: Execution) -> list[str]:
        """The execution as REST lists it: its rows as JSON, the oldest first."""

    @abstractmethod
    def answer(self, request: Request, listed: Sequence[Listed]) -> str:
        """What REST answers when these, the oldest first, are all there are. It asserts that the request is right."""

    @cached_property
    def description(self) -> VenueDescription:
        return VENUES[self.name]

    @cached_property
    def venue(self) -> Venue:
        """With an API key, where there is such a thing."""
        return self.description.live(has_key=self.description.api_key is not None)

    def parser(self) -> FrameParser:
        return self.description.parser()

    def trades(self, executions: Sequence[Execution], market: str | None = None) -> list[Trade]:
        """As the websocket gives them, over one connection."""
        parser, trades = self.parser(), []
        for frame in self.frames(market or self.market, executions):
            parsed = parser.parse(frame, NOW)
            assert parsed.rejected == []
            trades += parsed.trades
        assert len(trades) == len(executions)
        return trades

    @cached_property
    def busy(self) -> tuple[list[Execution], list[Trade]]:
        """1,300 executions of 52 seconds, and their trades: several answers of any venue, all of them recent."""
        executions = [replace(each, at_ms=FIRST_MS + 40 * place) for place, each in enumerate(one_a_second(1300))]
        return executions, self.trades(executions)

    def repair(self, rest: Callable[[Request], bytes], since: Sequence[Trade], until: Trade | None) -> Outcome:
        return run_plan(self.venue.repair(self.market, since, until), rest)


class Rest:
    """A venue's REST interface in memory: a history, of which each request sees as much as has happened by then.

    `visible`: how many executions the first request sees, the second, …; the last of them goes for all that follow.
    `bad`: numbers of executions whose rows are no trades.
    """

    def __init__(
        self,
        samples: VenueSamples,
        executions: Sequence[Execution],
        visible: Iterable[int] = (),
        bad: Iterable[int] = (),
    ) -> None:
        bad = frozenset(bad)
        self._samples = samples
        self._listed = [
            Listed(
                each,
                [f'{{"bad":{each.number}}}' for _ in samples.rows(each)] if each.number in bad else samples.rows(each),
            )
            for each in executions
        ]
        self._visible = list(visible) or [len(executions)]
        self._asked = 0

    def __call__(self, request: Request) -> bytes:
        visible = self._visible[min(self._asked, len(self._visible) - 1)]
        self._asked += 1
        assert self._samples.market in request.parameters.values()
        return self._samples.answer(request, self._listed[:visible]).encode()


def one_a_second(count: int, first: int = 1) -> list[Execution]:
    """Executions that differ in price, one each second."""
    takers: tuple[Literal["buy", "sell"], ...] = ("buy", "sell")
    return [
        Execution(first + place, FIRST_MS + 1000 * place, str(5_860_000 + place), taker=takers[place % 2])
        for place in range(count)
    ]


@st.composite
def histories(draw: st.DrawFn) -> list[Execution]:
    """Milliseconds with one to five executions, some equal in every field, after gaps of all kinds."""
    executions: list[Execution] = []
    at_ms = FIRST_MS
    groups = st.tuples(st.sampled_from([1, 1, 2, 900, 60_000]), st.integers(1, 5))
    for gap_ms, size in draw(st.lists(groups, min_size=1, max_size=15)):
        at_ms += gap_ms
        for _ in range(size):
            executions.append(
                Execution(
                    1 + len(executions),
                    at_ms,
                    draw(st.sampled_from(["5860832", "5860833.5"])),
                    draw(st.sampled_from(["0.01", "12"])),
                    draw(st.sampled_from(["buy", "sell"])),
                )
            )
    return executions
