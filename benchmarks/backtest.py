"""Candles per second of a backtest: through `ma_cross` and a strategy that says nothing, from memory and from stores.

    .venv/bin/python benchmarks/backtest.py [--candles N] [--stores sqlite,postgres,lake] [--json]

`memory` is the engine, the strategy and the simulation alone: candles of one symbol and timeframe are there already. A
store is read as `ashi strategy backtest` does it. All without the checks, which are made of some parts of the run; what
they take is the last row. Best of three; all numbers are those of this machine now.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from contextlib import ExitStack
from dataclasses import replace
from decimal import Decimal

from stores import NEW_STORES, new_store

from ashi.contracts import Candle
from ashi_sinks.registry import make_sink, open_reader
from ashi_strategies import Strategy, StrategySeries, Target, load_strategy, plans_of
from ashi_strategies.backtest.backtest import BacktestRequest, run_backtest
from ashi_strategies.backtest.in_memory import CandlesInMemory
from ashi_strategies.backtest.sources import CandleSource

SYMBOL = "binance:ETHUSDT"
START_US = 1_700_000_040_000_000
MINUTE_US = 60_000_000
ROUNDS = 3
BATCH = 10_000


class Empty(Strategy):
    """Says nothing."""

    @property
    def startup_candles(self) -> int:
        """The least there is."""
        return 1

    def on_candle(self, candle: Candle, series: StrategySeries) -> Target | None:  # noqa: ARG002
        """Nothing."""
        return None


def make_candles(count: int) -> list[Candle]:
    """Minutes of a price that wanders."""
    rng = random.Random(1)
    candles, price = [], 2_650_000
    for number in range(count):
        opened, price = price, max(price + rng.randint(-900, 900), 1_000)
        open_, close = Decimal(opened) / 1000, Decimal(price) / 1000
        volume = Decimal(rng.randint(1, 10**11)) / 10**8
        candles.append(
            Candle(
                symbol=SYMBOL,
                timeframe="1m",
                open_time=START_US + number * MINUTE_US,
                close_time=START_US + (number + 1) * MINUTE_US,
                open=open_,
                high=max(open_, close),
                low=min(open_, close),
                close=close,
                volume=volume,
                quote_volume=volume * close,
                trade_count=100,
                taker_buy_volume=volume / 2,
                taker_buy_quote_volume=volume * close / 2,
                first_trade_id=str(100 * number),
                last_trade_id=str(100 * number + 99),
                version=100 * number + 99,
            )
        )
    return candles


def best(source: CandleSource, request: BacktestRequest, count: int) -> float:
    """Candles per second."""
    rates = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        asyncio.run(run_backtest(source, request))
        rates.append(count / (time.perf_counter() - began))
    return max(rates)


def best_of_store(url: str, request: BacktestRequest, count: int) -> float:
    """Candles per second out of a store."""

    async def run() -> float:
        rates = []
        for _ in range(ROUNDS):
            async with open_reader(url) as reader:
                began = time.perf_counter()
                await run_backtest(reader, request)
                rates.append(count / (time.perf_counter() - began))
        return max(rates)

    return asyncio.run(run())


async def fill(url: str, candles: list[Candle]) -> None:
    """Store them."""
    sink = make_sink(url)
    await sink.open()
    try:
        for start in range(0, len(candles), BATCH):
            await sink.write(candles[start : start + BATCH])
    finally:
        await sink.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candles", type=int, default=50_000)
    parser.add_argument("--stores", default="sqlite")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    candles = make_candles(chosen.candles)
    requests = {
        strategy.name: BacktestRequest(
            plans_of(strategy, [SYMBOL]), None, None, Decimal(10_000), Decimal("0.001"), check=False
        )
        for strategy in (load_strategy("ma_cross"), Empty)
    }
    rates: dict[str, dict[str, float]] = {}
    memory = CandlesInMemory(candles)
    with ExitStack() as stack:
        rates["memory"] = {name: best(memory, request, len(candles)) for name, request in requests.items()}
        for store in filter(None, chosen.stores.split(",")):
            if store not in NEW_STORES:
                parser.error(f"there is no store {store!r}: write one of {', '.join(NEW_STORES)}")
            url = stack.enter_context(new_store(store))
            asyncio.run(fill(url, candles))
            rates[store] = {name: best_of_store(url, request, len(candles)) for name, request in requests.items()}
        checked = replace(requests["ma_cross"], check=True)
        rates["memory, with checks"] = {"ma_cross": best(memory, checked, len(candles))}
    if chosen.json:
        print(json.dumps(rates))
        return
    print(f"{'candles/s':<22}" + "".join(f"{name:>12}" for name in requests))
    for source, of_source in rates.items():
        print(f"{source:<22}" + "".join(f"{of_source[name]:>12,.0f}" for name in requests if name in of_source))


if __name__ == "__main__":
    main()
