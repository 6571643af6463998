"""`ashi chart`: the live chart."""

from __future__ import annotations

from typing import Annotated, Final

from ashi_cli.declaration import Command, Option
from ashi_cli.extras import require_extras
from ashi_cli.shared_options import STORAGE, environment_with


def chart(
    *,
    storage: Annotated[str | None, STORAGE] = None,
    host: Annotated[
        str | None, Option("address to serve on (default: ASHI_CHART_HOST, else 127.0.0.1)", metavar="ADDRESS")
    ] = None,
    port: Annotated[str | None, Option("port, 0 for a free one (default: ASHI_CHART_PORT, else 8080)")] = None,
    base_path: Annotated[
        str | None, Option("path to serve below, such as /ashi (default: ASHI_CHART_BASE_PATH, else /)", metavar="PATH")
    ] = None,
) -> int:
    """`ashi chart`."""
    from ashi.runtime.settings import Settings

    environment = environment_with(storage)
    given = {"ASHI_CHART_HOST": host, "ASHI_CHART_PORT": port, "ASHI_CHART_BASE_PATH": base_path}
    environment |= {variable: value for variable, value in given.items() if value is not None}
    settings = Settings.from_environment(environment)
    require_extras("chart", store=settings.storage)
    from ashi_chart.worker import run_chart

    return run_chart(settings)


CHART: Final = Command(
    name="chart",
    text="serve the live chart of candles, in Kafka and in a store",
    run=chart,
    epilog="""\
examples:
  ashi chart --storage sqlite:////data/candles.db            http://127.0.0.1:8080/
  ashi chart --port 0                                        a free port, told in the log
  ASHI_CHART_TOKEN_FILE=/run/secrets/chart ashi chart --host 0.0.0.0 --base-path /ashi""",
)
