"""The process `ashi chart`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.runtime.logs import get_logger
from ashi.runtime.service import run_service, run_until_first_ends
from ashi_chart.board import Board
from ashi_chart.hub import Hub
from ashi_chart.markets.sweep import Sweep
from ashi_chart.pages.security import is_loopback
from ashi_chart.pages.web import ChartServer
from ashi_chart.series.store import ChartStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from ashi.runtime.service import Service
    from ashi.runtime.settings import Settings

BEAT_S: Final = 1.0

_log = get_logger(__name__)


def run_chart(settings: Settings) -> int:
    """Serve the chart until SIGTERM; the exit status."""
    return run_service("chart", settings, serve_chart)


async def serve_chart(service: Service, on_served: Callable[[str], None] = lambda _: None) -> None:
    """Serve the chart until the service stops. `on_served` gets its address.

    Raises UsageError when the port or address cannot be had, or the store is none, and BrokerError when Kafka is there
    and lacks a topic or refuses us.
    """
    settings = service.settings
    store = ChartStore(settings.storage)
    board = Board(settings, store)
    server = ChartServer(settings, board)
    address = await server.start()
    try:
        _log.info("the chart is served", address=address)
        on_served(address)
        if settings.chart_token is None and not is_loopback(settings.chart_host):
            _log.warning("whoever can reach the chart sees it; ASHI_CHART_TOKEN asks for a token", address=address)
        await run_until_first_ends(
            Hub(board).run(service),
            board.series.run(),
            board.run(),
            Sweep(board.markets, store).run(service),
            _beat(service),
        )
    finally:
        await server.close()
        await store.close()


async def _beat(service: Service) -> None:
    """The process is alive as long as its loop turns; whoever is away, it waits."""
    while not service.stopping.is_set():
        await service.pause(BEAT_S)
