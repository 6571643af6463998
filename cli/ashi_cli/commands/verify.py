"""`ashi verify`: stored candles against their trades, or against the exchange's own candles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

from ashi_cli import values
from ashi_cli.declaration import Command, OneOf, Option, Positional
from ashi_cli.extras import require_extras
from ashi_cli.shared_options import BEGIN, END, SYMBOLS
from ashi_ingest.venues.registry import KLINE_FILE, KLINE_VENUES

_AGAINST: Final = OneOf(required=True)
_TOPIC: Final = "topic"


def verify(
    *,
    store: Annotated[
        str | None,
        Positional(
            "such as sqlite:////absolute/path.db (default: ASHI_STORAGE)", metavar="STORE_URL", parse=values.url
        ),
    ] = None,
    storage: Annotated[str | None, Option("the same, as elsewhere", metavar="URL", parse=values.url)] = None,
    trades: Annotated[
        str | None,
        Option(
            "with the trades of topic trades, or with those kept in a lake",
            metavar="LAKE_URL",
            parse=values.trades,
            bare=_TOPIC,
            one_of=_AGAINST,
        ),
    ] = None,
    klines: Annotated[
        str | None,
        Option(
            f"with a file of klines of {KLINE_FILE.publisher}, or over REST: {', '.join(KLINE_VENUES)}",
            metavar="FILE|VENUE",
            one_of=_AGAINST,
        ),
    ] = None,
    recordings: Annotated[
        Sequence[tuple[str, Path]],
        Option(
            "with --trades: those of this recording instead of the topic's; repeatable, in order",
            flag="--recording",
            metavar="VENUE=PATH",
            parse=values.recording,
        ),
    ] = (),
    begin_at: Annotated[int, BEGIN] = 0,
    end_at: Annotated[int | None, END] = None,
    symbols: Annotated[Sequence[str], SYMBOLS] = (),
    timeframes: Annotated[
        Sequence[str],
        Option("only this; repeatable", flag="--timeframe", metavar="TIMEFRAME", parse=values.timeframe),
    ] = (),
    json: Annotated[bool, Option("each difference as a line of JSON, then a summary")] = False,
) -> int:
    """`ashi verify`."""
    import asyncio

    from ashi.contracts.errors import UsageError
    from ashi.runtime.settings import Settings

    if store and storage:
        raise UsageError("the store is given twice: leave out --storage")
    if recordings and trades != _TOPIC:
        raise UsageError("--recording goes with --trades, and takes the place of the topic")
    settings = Settings.from_environment()
    compared = store or storage or settings.storage
    require_extras("verify --klines" if klines is not None else "verify", store=compared)
    if trades not in (None, _TOPIC):
        require_extras("verify --trades", store=trades)
    from ashi_audit.request import VerifyOptions
    from ashi_audit.verify_trades import verify_trades

    chosen = VerifyOptions(
        storage=compared,
        symbols=symbols,
        timeframes=timeframes,
        start=begin_at,
        json=json,
        recordings=recordings,
        lake=None if trades == _TOPIC else trades,
        **({} if end_at is None else {"end": end_at}),
    )
    if klines is not None:
        from ashi_audit.verify_klines import verify_klines

        return asyncio.run(verify_klines(settings, chosen, klines))
    return asyncio.run(verify_trades(settings, chosen))


VERIFY: Final = Command(
    name="verify",
    text="compare stored candles with their trades, or with the exchange's own",
    run=verify,
    epilog="""\
examples:
  ashi verify sqlite:///candles.db --trades
  ashi verify sqlite:///candles.db --trades --recording binance=monday.txt.gz
  ashi verify sqlite:///candles.db --klines BTCUSDT-1m-2026-11-01.zip
  ashi verify postgresql://ashi@db/market --klines binance --from 2026-11-01 --to 2026-11-02

Exit status: 0 when all is equal or the difference is explained, 1 when not, 2 when nothing could be
compared (docs/verify.md).""",
)
