"""The process `ashi chart`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ashi.runtime.logs import get_logger
from ashi.runtime.service import run_service
from ashi_chart.security import is_loopback
from ashi_chart.web import ChartServer

if TYPE_CHECKING:
    from ashi.runtime.service import Service
    from ashi.runtime.settings import Settings

BEAT_S: Final = 1.0

_log = get_logger(__name__)


def run_chart(settings: Settings) -> int:
    """Serve the chart until SIGTERM; the exit status."""
    return run_service("chart", settings, serve_chart)


async def serve_chart(service: Service) -> None:
    """Serve the chart until the service stops. Raises UsageError when the port or address cannot be had."""
    settings = service.settings
    server = ChartServer(settings)
    address = await server.start()
    try:
        _log.info("the chart is served", address=address)
        if settings.chart_token is None and not is_loopback(settings.chart_host):
            _log.warning(
                "whoever reaches this address sees the chart: ASHI_CHART_TOKEN asks for a token", address=address
            )
        service.health.set_ready(True, f"serving {address}")
        while not service.stopping.is_set():
            await service.pause(BEAT_S)
    finally:
        await server.close()
