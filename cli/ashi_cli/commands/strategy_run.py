"""`ashi strategy run`: a strategy at work; and `ashi strategy list`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from ashi_cli import values
from ashi_cli.declaration import Command, Option
from ashi_cli.extras import require_extras
from ashi_cli.strategy_options import FAST, NAME, PARAM, SLOW, SYMBOL, TIMEFRAME, given_parameters, strategy_named


def run(
    *,
    name: Annotated[str, NAME],
    symbol: Annotated[Sequence[str], SYMBOL] = (),
    timeframe: Annotated[Sequence[str], TIMEFRAME] = (),
    fast: Annotated[str | None, FAST] = None,
    slow: Annotated[str | None, SLOW] = None,
    param: Annotated[Sequence[tuple[str, str]], PARAM] = (),
    begin_at: Annotated[
        int | None,
        Option(
            "where it never ran before: give signals of candles that closed after that, too (ISO 8601, UTC; default: "
            "from the newest candle on)",
            flag="--from",
            metavar="TIME",
            parse=values.time,
        ),
    ] = None,
    warm_from: Annotated[
        str | None,
        Option(
            "a store with the candles before those that Kafka still has, such as sqlite:////data/candles.db",
            metavar="URL",
            parse=values.url,
        ),
    ] = None,
) -> int:
    """`ashi strategy run`."""
    from ashi.runtime.settings import Settings

    if warm_from is not None:
        require_extras("strategy run", store=warm_from)
        from ashi_sinks.registry import store_name

        store_name(warm_from)  # so that a wrong one is refused now, and not when it is opened
    from ashi_strategies import plans_of
    from ashi_strategies.live.instance import Instance
    from ashi_strategies.live.worker import run_strategy

    settings = Settings.from_environment()
    plans = plans_of(strategy_named(name), symbol, timeframe, given_parameters(param, fast, slow))
    return run_strategy(settings, Instance(plans), since=begin_at, store=warm_from)


def list_strategies() -> int:
    """`ashi strategy list`."""
    from ashi_cli.printing.strategies import print_strategies

    return print_strategies()


RUN: Final = Command(
    name="run",
    text="run a strategy on the candles that close from now on, its signals into topic signals",
    run=run,
    epilog="""\
examples:
  ashi strategy run ma_cross --symbol bitflyer:BTC_JPY --fast 9 --slow 21
  ashi strategy run trend_pullback --symbol binance:BTCUSDT --timeframe 5m --timeframe 1h --param rsi=10
  ashi strategy run venue_spread --symbol bitflyer:BTC_JPY --symbol gmo:BTC
  ashi strategy run my_package.ideas:Breakout --symbol gmo:BTC --param length=20

One process runs one strategy. Each goes on where it was, however it ended; of two with the same strategy, parameters
and series the one that was started last goes on and the other ends (exit status 78).""",
)
LIST: Final = Command(
    name="list", text="the strategies that come with Ashi, with their parameters", run=list_strategies
)
