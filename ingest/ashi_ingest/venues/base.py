"""What is asked of a venue besides its parser: limits as data, messages as bytes, repair as a plan, its klines.

Pure as the parser is: nothing here reads a socket or a clock. One policy (`ashi_ingest.websocket.session`) runs the
connections of all venues; what differs from one venue to the next is what these protocols ask for. A venue's folder
exports one `VenueDescription`, and `ashi_ingest.venues.registry` lists them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Generator, Iterator, Sequence
    from decimal import Decimal

    from ashi.contracts.instrument import InstrumentState
    from ashi.contracts.timeframe import Timeframe
    from ashi.contracts.trade import Trade
    from ashi_ingest.venues.parsing import FrameParser
    from ashi_ingest.venues.trade_file import TradeFileFormat


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
        request_interval_s: on average, least time between two REST requests of weight 1; one of weight n counts as n.
        request_window_s: the average is that of any such time, and repairs may take all that is left of it at once. 0:
            none is asked at once, one follows another at that pace.
        address_weight: what the venue allows all processes of an address within that time, where it tells in
            `used_header` of its answers how much they have used.
        used_header: see there.
        disorder_s: what comes later, or stands later in an answer, may have happened so much earlier: times do not
            quite grow with the order. By so much less than its newest trade does an answer show.
        banned_until: finds in the body of a refusal until when (ms since 1970, group 1) this address is banned, where
            the venue says it there and perhaps nowhere else.

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
    request_window_s: float = 0.0
    address_weight: float | None = None
    used_header: str | None = None
    disorder_s: float = 0.0
    banned_until: re.Pattern[str] | None = None


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


class ApiKey(NamedTuple):
    """An API key that some requests of a venue need: the setting that holds it, and the header it is sent in."""

    setting: str
    header: str


class Request(NamedTuple):
    """A GET request to the venue's REST interface. `weight` is the venue's count of it.

    `api_key`: the key without which it is not sent; None where none is needed. `may_be_refused`: HTTP 400 is an answer
    like another, because the venue tells by it that it does not go back so far.
    """

    path: str
    parameters: dict[str, str]
    weight: int = 1
    api_key: ApiKey | None = None
    may_be_refused: bool = False


class ListedMarket(NamedTuple):
    """A market as the venue lists it, see `ashi.contracts.instrument`; None for what the venue does not say.

    `state` is `delisted` where it is listed although it is closed for good.
    """

    market: str
    base: str | None
    quote: str | None
    tick_size: Decimal | None
    lot_size: Decimal | None
    state: InstrumentState


class Answer(NamedTuple):
    """The body of a successful answer (HTTP 200; see `Request.may_be_refused`) and when it was received, µs."""

    body: bytes
    received_at: int


class Missing(NamedTuple):
    """A step of a plan: something is not to be had there, told before any trade that comes after it.

    So it is known also when the plan is broken off later. Every plan by time tells it; one by trades where ids are
    contiguous, as they show where it lies. It lies after the trades that were yielded last, and at the
    latest among those of the two steps with trades that follow; with `beyond_reach` it is all before the next trade.
    `final`, `beyond_reach`: see `RepairEnd`. The reason stands in that of the end as well.
    """

    reason: str
    final: bool = False
    beyond_reach: bool = False


class RepairEnd(NamedTuple):
    """How a repair ended.

    A reason is not final, and asking again later may help, unless one of the last two says otherwise. Without a
    reason all up to `until` has been yielded; or, where the plan was made without one, all that REST shows: then
    `shown_until` tells how far that goes, as REST lags.

    Attributes:
        reason: None when nothing is missing any more, else why something is.
        shown_until: REST has shown everything that happened before this time, µs, but for what `reason` tells: it lists
            a trade of then, or the venue says so itself. It is earlier than the newest trade listed by
            `Limits.disorder_s`. None: it has shown nothing.
        final: it is the venue's own word that what is missing does not exist: it lists what came before and after.
        beyond_reach: the venue does not go so far back, or not without an API key.
        retry_after_s: the least time after which to ask again, seconds.
        is_told: all of the reason was told by `Missing`; but for that, all was yielded, as if there were no reason.

    """

    reason: str | None = None
    shown_until: int | None = None
    final: bool = False
    beyond_reach: bool = False
    retry_after_s: float = 0.0
    is_told: bool = False


class Statement(NamedTuple):
    """One request by which a venue states the last trade of all its markets at once.

    Attributes:
        read: reads the answer: by market the id of its last trade, -1 where it knows of none. Only markets whose ids
            are contiguous. Raises ContractError.

    """

    request: Request
    read: Callable[[bytes], dict[str, int]]


FetchPlan: TypeAlias = "Generator[Request | list[Trade] | Missing, Answer | None, RepairEnd]"
"""A plan of a repair, or of a stretch of history. It yields either a request, and is sent the answer, or trades in the
venue's order, and is sent None, or what is missing; it returns how it ended. It raises ContractError when an answer
cannot be read. Trades are yielded as soon as their order is certain, so a repair of hours does not have to fit into
memory where the venue can be read forwards."""


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

    @property
    def statement(self) -> Statement | None:
        """How the venue states the last trade of all its markets; None where it does not."""

    def parser(self) -> FrameParser:
        """A parser for one connection. Made anew for each, because a venue without ids has to count as it reads."""

    def contiguous(self, market: str) -> bool:
        """Whether the numeric ids of its trades follow each other without a hole, so that a hole may be a loss."""

    def subscriptions(self, markets: Sequence[str], first_id: int) -> list[Subscription]:
        """The messages that subscribe to `markets`, with ids counted from `first_id`."""

    def unsubscription(self, market: str, request_id: int) -> str | None:
        """The message that ends a subscription to a market; None where the venue has none."""

    def control(self, frame: bytes) -> Control | None:
        """What a frame without trades says about the connection; None for one that says nothing. Never raises."""

    def markets_request(self) -> Request:
        """The request for all markets of the venue."""

    def read_markets(self, body: bytes) -> list[ListedMarket]:
        """All markets that are listed, whatever their names and whether they trade or not. Raises ContractError."""

    def repair(self, market: str, since: Sequence[Trade], until: Trade | None) -> FetchPlan:
        """Plan how to get what happened after `since` and before `until`.

        `since`: the trades published last, oldest first, at least one: where what is known ends. `until`: the first
        trade that came over the connection that is open now; None when none has come yet, then everything there is.
        What is yielded may repeat trades of `since` or go beyond `until`; whoever runs it drops what is known.
        """

    def history(self, market: str, since_us: int, until_us: int | None) -> FetchPlan:
        """Plan how to get what happened at or after `since_us` and, unless None, before `until_us`, µs by `traded_at`.

        It asks for what there is and never waits for a REST interface that lags: the end tells by `shown_until` how far
        that went, which is `until_us` at least where nothing lags. What is yielded may go beyond either end, whoever
        runs it drops that; it is in the venue's order, each trade once. Where the venue does not go back to
        `since_us` it yields what there is and ends `beyond_reach`, with a reason that names from when on. Whatever is
        not to be had is told by `Missing` as soon as it is seen; a plan that gives up ends without a `shown_until`.
        """


class Kline(NamedTuple):
    """A venue's own candle.

    Attributes:
        open_time: µs; `length_us` how long it lasts.
        volume: base currency; `quote_volume`, `taker_buy_quote_volume` in quote currency. None where the venue does not
            tell, as for `trade_count`.

    """

    open_time: int
    length_us: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal | None = None
    trade_count: int | None = None
    taker_buy_volume: Decimal | None = None
    taker_buy_quote_volume: Decimal | None = None


class KlinePage(NamedTuple):
    """One request, and the time (µs, end exclusive) whose klines it gives."""

    request: Request
    start: int
    end: int


class Klines(Protocol):
    """The klines that a venue publishes over REST, and what must be known to compare candles with them."""

    @property
    def uncounted(self) -> str | None:
        """Which trades count in no kline, so that a candle may have more: a clause. None: no such."""

    def covers(self, timeframe: Timeframe) -> bool:
        """Whether there are klines of that length that are the same windows as ours."""

    def pages(self, market: str, timeframe: Timeframe, start: int, end: int) -> Iterator[KlinePage]:
        """The requests for the klines that begin in [start, end), µs, oldest first. `timeframe` must be covered."""

    def read(self, timeframe: Timeframe, body: bytes) -> list[Kline]:
        """The klines of an answer, oldest first. Raises ContractError when it cannot be read."""

    def explain(self, field: str, candle: Decimal | int, kline: Decimal | int) -> str | None:
        """Why the values of a field differ, if it is by the venue's own way of counting; else None."""


class KlineFile(NamedTuple):
    """The files of klines that a publisher has for download: CSV, perhaps in a .zip.

    Attributes:
        publisher: in prose.
        read_row: one row. Raises ContractError.

    """

    publisher: str
    read_row: Callable[[Sequence[str]], Kline]


class MakeVenue(Protocol):
    """Makes a venue for live feeds."""

    def __call__(self, *, has_key: bool) -> Venue:
        """`has_key`: whether there is the API key that `VenueDescription.api_key` tells of."""


@dataclass(frozen=True, slots=True)
class VenueDescription:
    """All that Ashi knows of one venue: what its folder exports and the registry lists.

    Attributes:
        name: as it begins its symbols and names it on the command line: `bitflyer`.
        title: in prose: `bitFlyer`.
        example_market: one of its markets, for help texts.
        busiest_markets: those that trade most; `ashi demo --live` reads them unless others are named.
        parser: a parser for one feed, a connection or a recording. Made anew for each, because a venue without trade
            ids has to count as it reads.
        doubt: what speaks against a recorded frame's being one of the venue's single trades (a sum of several, a key
            that only another venue sends), and what to do; None if nothing does. None where no frame can tell.
        live: the venue as live feeds need it.
        klines: None when it publishes none.
        api_key: what some of its requests need; None when it gives everything to everybody.
        trade_file: how files of its trades stand, as it publishes them or its users keep them; None if there are none.

    """

    name: str
    title: str
    example_market: str
    busiest_markets: tuple[str, ...]
    parser: Callable[[], FrameParser]
    live: MakeVenue
    doubt: Callable[[bytes], str | None] | None = None
    klines: Klines | None = None
    api_key: ApiKey | None = None
    trade_file: TradeFileFormat | None = None
