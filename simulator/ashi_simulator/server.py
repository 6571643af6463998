"""The simulator: a venue on a port of this machine."""

from __future__ import annotations

import asyncio
import errno
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from ashi.contracts.errors import UsageError
from ashi.runtime.descriptors import lack_of_descriptors
from ashi_simulator.control import control_routes
from ashi_simulator.exchange import TICK_S, Exchange, Source
from ashi_simulator.executions import History, TradeHistory, TruthReader
from ashi_simulator.fault_injector import FaultInjector
from ashi_simulator.limit_usage import LimitUsage, SubscribeUsage, WeightUsage
from ashi_simulator.markets.listings import Listings
from ashi_simulator.markets.ongoing import ONGOING_TICK_S, OngoingMarkets
from ashi_simulator.markets.recorded import RecordedMarket
from ashi_simulator.markets.synthetic import SyntheticMarket
from ashi_simulator.rest_endpoint import RestEndpoint
from ashi_simulator.rules import RULES, Rules, check_venue
from ashi_simulator.script import Step, check_script
from ashi_simulator.subscriptions import Subscriptions
from ashi_simulator.venues.binance import BinanceServer
from ashi_simulator.venues.bitflyer import BitFlyerServer
from ashi_simulator.venues.gmo import GmoServer
from ashi_simulator.websocket_endpoint import WebsocketEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from ashi.contracts.trade import Trade
    from ashi_simulator.executions import TrueTrade
    from ashi_simulator.venue_server import VenueServer

SHUTDOWN_S: Final = 0.5
NEVER_OF_ONGOING: Final = frozenset({"halt", "list_market", "delist_market", "clock"})
"""Faults that a market which is a function of the time does not have."""


class Simulator:
    """A venue that listens on one port for websockets and REST, as an async context manager.

    The market does not trade before `start_market`, so that a client can subscribe first. With `trades` (those of a
    recording) they happen again: the markets are theirs, or the named ones of them, `rate`, `bursts` and `uneven` do
    not count, and time passes `speed` times as fast. `rate`: executions per second over all markets together. `uneven`:
    the last of the markets hardly trade. `ongoing`: the markets have always been open, trade by the machine's clock and
    tell the same past after each start (`rate` is that of each, `bursts` and `uneven` do not count).

    Raises:
        UsageError: the venue, a market, or the script is wrong, or the port is taken.

    """

    def __init__(
        self,
        venue: str,
        markets: Sequence[str] = (),
        *,
        seed: int = 0,
        rate: float = 100.0,
        bursts: bool = False,
        uneven: bool = False,
        trades: Sequence[Trade] = (),
        speed: float = 1.0,
        ongoing: bool = False,
        script: Sequence[Step] = (),
        rules: Rules | None = None,
        tick_s: float = TICK_S,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """`tick_s`: executions happen in steps of this; their times lie between the steps. Not where they go on."""
        self.venue = check_venue(venue)
        self.rules = RULES[venue] if rules is None else rules
        source: Source
        make_history: Callable[[str], History] = partial(TradeHistory, venue)
        if ongoing:
            self.markets = tuple(dict.fromkeys(markets))
            source = goes_on = OngoingMarkets(venue, self.markets, seed=seed, rate=rate)
            make_history = goes_on.history
        elif trades:
            source = recorded = RecordedMarket(venue, trades, speed=speed)
            self.markets = _recorded_markets(markets, recorded.markets)
        else:
            self.markets = tuple(dict.fromkeys(markets))
            source = SyntheticMarket(venue, self.markets, seed=seed, rate=rate, bursts=bursts, uneven=uneven)
        if not self.markets:
            raise UsageError(f"name the markets of {venue} to simulate, such as BTC_JPY or BTCUSDT")
        check_script(script, venue, self.markets)
        self._ongoing = ongoing
        for step in script:
            self._check_possible(step.fault)
        self._host = host
        self._port = port
        self._listings = Listings(venue, self.markets)
        self._subscriptions = Subscriptions(self._listings)
        self._venue_server = self._make_venue_server()
        self._usage = LimitUsage(
            SubscribeUsage(self.rules.subscribe_interval_s),
            WeightUsage(self.rules.rest_weight, self.rules.rest_window_s),
            WeightUsage(self.rules.connections, self.rules.connections_window_s),
        )
        self._exchange = Exchange(
            self._listings,
            source=source,
            subscriptions=self._subscriptions,
            venue_server=self._venue_server,
            script=script,
            make_history=make_history,
            sleeps=not ongoing,
            tick_s=ONGOING_TICK_S if ongoing else tick_s,
        )
        rest = RestEndpoint(self._venue_server, self._exchange, self._usage)
        websocket = WebsocketEndpoint(self.rules, self._subscriptions, self._venue_server, self._usage)
        self._fault_injector = FaultInjector(
            venue,
            subscriptions=self._subscriptions,
            exchange=self._exchange,
            rest=rest.faults,
            websocket=websocket,
            venue_server=self._venue_server,
            random=Random(f"{venue} {seed}"),  # noqa: S311  (faults, not secrets)
            refuse=self._refuse,
        )
        self._runner = web.AppRunner(self._application(websocket, rest), access_log=None, shutdown_timeout=SHUTDOWN_S)
        self._site: web.TCPSite | None = None

    def _make_venue_server(self) -> VenueServer:
        match self.venue:
            case "bitflyer":
                return BitFlyerServer(self._subscriptions, self.rules)
            case "gmo":
                return GmoServer(self._subscriptions)
            case _:
                return BinanceServer(self._subscriptions, self.rules, usdm=self.venue == "binance-usdm")

    def _application(self, websocket: WebsocketEndpoint, rest: RestEndpoint) -> web.Application:
        application = web.Application()
        for path in self._venue_server.websocket_paths:
            application.router.add_get(path, websocket.handle)
        for route in self._venue_server.routes:
            application.router.add_get(route.path, rest.handler(route))
        application.add_routes(control_routes(self))
        return application

    async def __aenter__(self) -> Simulator:
        await self._runner.setup()
        try:
            await self._listen()
        except BaseException:
            await self._runner.cleanup()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._exchange.stop()
        finally:
            await self._fault_injector.stop()
            for connection in list(self._subscriptions.connections):
                connection.reset()
            await self._runner.cleanup()

    async def _listen(self) -> None:
        site = web.TCPSite(self._runner, self._host, self._port, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise UsageError(
                f"port {self._port} of {self._host} is taken: choose another, or 0 for a free one"
            ) from None
        if not self._runner.addresses:  # asyncio has passed over a socket that it could not make
            raise UsageError(
                f"cannot serve on {self._host} port {self._port}: {lack_of_descriptors() or 'no socket can be made'}"
            )
        self._site = site
        self._port = self._runner.addresses[0][1]

    async def _refuse(self, seconds: float) -> None:
        """Close the listening socket for a while; a second time meanwhile changes nothing."""
        if self._site is None:
            return
        site, self._site = self._site, None
        await site.stop()
        await asyncio.sleep(seconds)
        await self._listen()

    @property
    def websocket_url(self) -> str:
        """Of the feed, with its path: ASHI_WEBSOCKET_URL."""
        return f"ws://{self._host}:{self._port}{self._venue_server.websocket_path}"

    @property
    def rest_url(self) -> str:
        """Of the REST interface, without a path: ASHI_REST_URL."""
        return f"http://{self._host}:{self._port}"

    @property
    def listed(self) -> list[str]:
        """The markets that are listed at the moment, those in a halt among them."""
        return list(self._listings)

    @property
    def trading(self) -> bool:
        """Whether executions happen."""
        return self._exchange.trading

    @property
    def trades(self) -> int:
        """How many executions have happened, USD-M's off the book among them."""
        return self._exchange.trades

    @property
    def script_done(self) -> bool:
        """Whether every fault of the script has been performed."""
        return self._exchange.script_done

    @property
    def faults_done(self) -> list[tuple[str, dict[str, Any]]]:
        """The faults so far, with all arguments, in the order they were performed."""
        return list(self._fault_injector.done)

    @property
    def subscribed(self) -> list[str]:
        """The markets somebody is subscribed to."""
        return self._subscriptions.subscribed()

    def start_market(self) -> None:
        """Let the market trade. Faults of a script count their seconds while it does."""
        self._exchange.start(self._fault_injector.perform)

    async def stop_market(self) -> None:
        """Let nothing happen any more; connections and REST stay. Raises what broke the market, if something did."""
        await self._exchange.stop()

    def truth(self, since_us: int = 0, markets: Iterable[str] | None = None) -> list[TrueTrade]:
        """What must be published of the executions so far, market by market, each in its order.

        `since_us`: only what was traded then or later, µs.
        """
        return list(self._exchange.truth(since_us, markets))

    def truth_reader(self, market: str) -> TruthReader:
        """What must be published of a market, to be read as it happens."""
        return TruthReader(self.venue, self._exchange.histories[market])

    def limits(self) -> dict[str, Any]:
        """What clients took of the limits: see `LimitUsage`."""
        return self._usage.as_dict()

    def fault(self, name: str, **arguments: Any) -> None:
        """Misbehave: see `FAULTS`. Raises UsageError for one that is unknown or makes no sense at this venue."""
        self._check_possible(name)
        self._fault_injector.perform(name, arguments)

    def _check_possible(self, fault: str) -> None:
        if self._ongoing and fault in NEVER_OF_ONGOING:
            raise UsageError(f"a market that is a function of the time has no fault {fault!r}: leave out --ongoing")

    async def wait_subscribed(self, markets: Iterable[str] | None = None) -> None:
        """Wait until somebody has subscribed to each of `markets` (all of them by default)."""
        await self._subscriptions.wait_subscribed(self.markets if markets is None else markets)


def websocket_path(venue: str) -> str:
    """Where the websocket of a venue is on its simulator's port. Raises UsageError for one that cannot be simulated."""
    match check_venue(venue):
        case "bitflyer":
            return BitFlyerServer.websocket_path
        case "gmo":
            return GmoServer.websocket_path
        case _:
            return BinanceServer.websocket_path


def _recorded_markets(wanted: Sequence[str], recorded: Sequence[str]) -> tuple[str, ...]:
    missing = [market for market in wanted if market not in recorded]
    if missing:
        raise UsageError(f"nothing of {', '.join(missing)} was recorded; there is {', '.join(recorded)}")
    return tuple(dict.fromkeys(wanted or recorded))
