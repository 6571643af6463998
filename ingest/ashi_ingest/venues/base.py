"""What a live feed needs of a venue besides its parser: limits as data, messages as bytes, repair as a plan.

Pure as the parser is: nothing here reads a socket or a clock. One policy (`ashi_ingest.websocket.session`) runs the
connections of all venues; what differs from one venue to the next is what this protocol asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from ashi.contracts.trade import Trade
    from ashi_ingest.venues.parsing import FrameParser


@dataclass(frozen=True, slots=True)
class Limits:
    """What the venue documents, and what we make of it. Times in seconds.

    Attributes:
        websocket_url: of the public feed, with its path.
        rest_url: of the public REST interface, without a path.
        markets_per_connection: how many markets one connection subscribes to.
        connect_interval_s: least time between two connection attempts from this process.
        message_interval_s: least time between two messages that we send over a connection, or, with
            `paced_by="address"`, over all connections of this process.
        paced_by: whether the venue counts messages by connection or by address.
        acknowledges: whether it answers a subscription. If not, one counts as accepted when no error has come
            `refusal_s` after it.
        refusal_s: how long a refusal is waited for, or, where there are any, an acknowledgment.
        silence_s: no frame at all for so long: the connection is taken for dead. Half of it: the feed is `silent`.
        ping_interval_s: how often we ping; None for never. (What the venue pings is answered always.)
        lifetime_s: the venue closes a connection at this age; it is renewed before. None for no limit.
        request_interval_s: least time between two REST requests of weight 1; one of weight n waits n times as long.

    """

    websocket_url: str
    rest_url: str
    markets_per_connection: int
    connect_interval_s: float
    message_interval_s: float
    paced_by: Literal["connection", "address"]
    acknowledges: bool
    refusal_s: float
    silence_s: float
    ping_interval_s: float | None
    lifetime_s: float | None
    request_interval_s: float


class Subscription(NamedTuple):
    """A message that subscribes to markets, and the id by which the venue will answer it."""

    request_id: int
    markets: tuple[str, ...]
    message: str


class Acknowledged(NamedTuple):
    """The venue has accepted the subscription of that id."""

    request_id: int


class Refused(NamedTuple):
    """The venue has refused a subscription (or says of none in particular that something was wrong).

    `request_id` and `market` are None where the venue does not tell; then it is the subscription sent last.
    `retryable`: subscribing again later may succeed (too many requests); otherwise the market does not exist.
    """

    request_id: int | None
    market: str | None
    reason: str
    retryable: bool


class Closing(NamedTuple):
    """The venue has announced that it will close this connection: open the next one now."""

    reason: str


Control: TypeAlias = Acknowledged | Refused | Closing


class Request(NamedTuple):
    """A GET request to the venue's REST interface. `weight` is the venue's count of it.

    `needs_key`: only with the API key of ASHI_BINANCE_API_KEY, in the header that the venue documents.
    """

    path: str
    parameters: dict[str, str]
    weight: int = 1
    needs_key: bool = False


class Answer(NamedTuple):
    """The body of a successful answer (HTTP 200) and when it was received, µs."""

    body: bytes
    received_at: int


class RepairEnd(NamedTuple):
    """How a repair ended: `reason` is None when nothing is missing any more, else why something is."""

    reason: str | None = None


Repair: TypeAlias = "Generator[Request | list[Trade], Answer | None, RepairEnd]"
"""A plan of a repair. It yields either a request, and is sent the answer, or trades in the venue's order, and is sent
None; it returns how it ended. It raises ContractError when an answer cannot be read. Trades are yielded as soon as
their order is certain, so a repair of hours does not have to fit into memory where the venue can be read forwards."""


class Venue(Protocol):
    """One venue, as its live feeds need it."""

    @property
    def name(self) -> str:
        """The venue as it begins its symbols: `bitflyer`."""

    @property
    def limits(self) -> Limits:
        """What the venue allows."""

    @property
    def ordered_ids(self) -> bool:
        """Whether `sequence` is an id of the venue that grows with each trade; else it counts within a millisecond."""

    def parser(self) -> FrameParser:
        """A parser for one connection. Made anew for each, because a venue without ids has to count as it reads."""

    def contiguous(self, market: str) -> bool:
        """Whether the numeric ids of its trades follow each other without a hole, so that a hole may be a loss."""

    def subscriptions(self, markets: Sequence[str], first_id: int) -> list[Subscription]:
        """The messages that subscribe to `markets`, with ids counted from `first_id`."""

    def control(self, frame: bytes) -> Control | None:
        """What a frame without trades says about the connection; None for one that says nothing. Never raises."""

    def markets_request(self) -> Request:
        """The request for all markets of the venue."""

    def read_markets(self, body: bytes) -> list[str]:
        """The markets that can be traded, by the venue's own names. Raises ContractError."""

    def repair(self, market: str, since: Sequence[Trade], until: Trade | None) -> Repair:
        """Plan how to get what happened after `since` and before `until`.

        `since`: the trades published last, oldest first, at least one: where what is known ends. `until`: the first
        trade that came over the connection that is open now; None when none has come yet, then everything there is.
        What is yielded may repeat trades of `since` or go beyond `until`; whoever runs it drops what is known.
        """
