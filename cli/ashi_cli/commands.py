"""What each `ashi` command does with its options; heavy libraries are imported by the command that needs them.

Every function gives the exit status and raises AshiError.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def demo(options: argparse.Namespace) -> int:
    """`ashi demo`."""
    from ashi_cli.onemachine.demo import DemoOptions, run_demo

    recordings: dict[str, list[Path]] = {}
    for venue, path in options.recording:
        recordings.setdefault(venue, []).append(path)
    markets: dict[str, list[str]] = {}
    for venue, market in options.market:
        markets.setdefault(venue, []).append(market)
    return run_demo(
        DemoOptions(
            recordings=recordings,
            storage=options.storage,
            workers=options.workers,
            timeframes=options.timeframes,
            workdir=options.workdir,
            json=options.json,
            overwrite=options.overwrite,
            live=options.live,
            markets=markets,
            seconds=options.seconds,
        )
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def broker_start(options: argparse.Namespace) -> int:
    """`ashi broker start`: the address goes to stdout, in the form that a shell can evaluate."""
    from ashi_cli.onemachine.broker import Broker

    broker = Broker(options.workdir)
    broker.start(port=options.port, say=_say)
    print(f"export ASHI_KAFKA_BOOTSTRAP={broker.bootstrap}")
    return 0


def broker_stop(options: argparse.Namespace) -> int:
    """`ashi broker stop`."""
    from ashi_cli.onemachine.broker import Broker

    Broker(options.workdir).stop(say=_say)
    return 0


def broker_status(options: argparse.Namespace) -> int:
    """`ashi broker status`: an error when none runs."""
    from ashi_cli.onemachine.broker import Broker

    print(f"a broker runs on {Broker(options.workdir).bootstrap}")
    return 0


def topics_create(_: argparse.Namespace) -> int:
    """`ashi topics create`."""
    import asyncio

    from ashi.contracts.topics import TRADES, topic_specs
    from ashi.runtime.kafka.topics import create_topics, partition_counts
    from ashi.runtime.settings import Settings

    settings = Settings.from_environment()
    partitions = asyncio.run(partition_counts(settings)).get(TRADES, settings.partitions)
    if partitions != settings.partitions:
        _say(
            f"topic {TRADES} has {partitions} partitions, so the others get as many and ASHI_PARTITIONS="
            f"{settings.partitions} is left aside; for more see `ashi topics check`"
        )
    specs = topic_specs(partitions, settings.timeframes)
    created = asyncio.run(create_topics(settings, specs))
    for name in created:
        print(f"created {name}")
    print(f"{len(created)} topics created, {len(specs) - len(created)} were there")
    return 0


def topics_check(_: argparse.Namespace) -> int:
    """`ashi topics check`: 1 when there are problems."""
    import asyncio

    from ashi.contracts.topics import topic_specs
    from ashi.runtime.kafka.topics import check_topics
    from ashi.runtime.settings import Settings

    settings = Settings.from_environment()
    specs = topic_specs(settings.partitions, settings.timeframes)
    problems = asyncio.run(check_topics(settings, specs))
    for problem in problems:
        print(problem)
    if not problems:
        print(f"all {len(specs)} topics are as they must be")
    return 1 if problems else 0


def ingest_replay(options: argparse.Namespace) -> int:
    """`ashi ingest replay`."""
    from ashi.runtime.settings import Settings
    from ashi_ingest.recording.replay import run_replay

    return run_replay(Settings.from_environment(), options.venue, options.paths, summary=options.summary)


def ingest_live(options: argparse.Namespace) -> int:
    """`ashi ingest bitflyer` and its like."""
    from ashi.contracts.errors import UsageError
    from ashi.runtime.settings import Settings
    from ashi_ingest.worker import LiveOptions, run_live

    if bool(options.markets) == options.all:
        raise UsageError("name the markets to read, or --all for all of the venue")
    return run_live(
        Settings.from_environment(), LiveOptions(options.venue, options.markets, options.shard, options.record)
    )


def venue_sim(options: argparse.Namespace) -> int:
    """`ashi venue-sim`."""
    import asyncio

    from ashi_cli.recorded_trades import read_trades
    from ashi_simulator import VenueSimOptions, check_venue, run_venue_sim

    check_venue(options.venue)
    asyncio.run(
        run_venue_sim(
            VenueSimOptions(
                venue=options.venue,
                markets=tuple(options.markets),
                seed=options.seed,
                rate=options.rate,
                bursts=options.bursts,
                trades=read_trades(options.venue, options.recording) if options.recording else (),
                speed=options.speed,
                script=options.script,
                random_faults=options.faults,
                lifetime_s=options.lifetime,
                starts=options.start,
                port=options.port,
            )
        )
    )
    return 0


def aggregate(_: argparse.Namespace) -> int:
    """`ashi aggregate`."""
    from ashi.runtime.settings import Settings
    from ashi_aggregate.worker import run_aggregate

    return run_aggregate(Settings.from_environment())


def reconfigure(options: argparse.Namespace) -> int:
    """`ashi aggregate reconfigure`."""
    import asyncio

    from ashi.runtime.settings import Settings
    from ashi_aggregate.epoch import reconfigure as raise_epoch

    before, after = asyncio.run(raise_epoch(Settings.from_environment(), options.begin_at))
    if before is not None:
        print(f"epoch {before.epoch}: {before}")
    print(f"epoch {after.epoch}: {after}")
    print("start the aggregate workers with these settings; they build their state anew from the log")
    return 0


def sink(options: argparse.Namespace) -> int:
    """`ashi sink`."""
    from ashi.contracts.errors import UsageError
    from ashi.runtime.settings import Settings
    from ashi_sinks.registry import STORES, migrate_store
    from ashi_sinks.worker import check_store, run_sink

    if options.store not in STORES:
        raise UsageError(f"there is no store {options.store!r}: write one of {', '.join(STORES)}")
    environment = _with_storage(options)
    for variable, value in STORES[options.store].settings.items():
        environment[variable] = environment.get(variable) or value
    settings = Settings.from_environment(environment)
    if options.migrate:
        check_store(settings, options.store)
        for line in migrate_store(settings.storage):
            print(line)
        return 0
    return run_sink(settings, options.store, options.topic, from_beginning=options.from_beginning)


def _with_storage(options: argparse.Namespace) -> dict[str, str]:
    environment = dict(os.environ)
    if options.storage is not None:
        environment.pop("ASHI_STORAGE_FILE", None)
        environment["ASHI_STORAGE"] = options.storage
    return environment


def candles(options: argparse.Namespace) -> int:
    """`ashi candles`."""
    from ashi.runtime.settings import Settings
    from ashi_cli.candles import run_candles

    storage = Settings.from_environment(_with_storage(options)).storage
    return run_candles(storage, options.symbol, options.timeframe, as_csv=options.csv, limit=options.limit)


def verify(options: argparse.Namespace) -> int:
    """`ashi verify`."""
    import asyncio

    from ashi.contracts.errors import UsageError
    from ashi.runtime.settings import Settings
    from ashi_audit.verify_trades import VerifyOptions, verify_trades

    topic = options.trades == "topic"
    if options.store and options.store_option:
        raise UsageError("the store is given twice: leave out --storage")
    if options.recording and not topic:
        raise UsageError("--recording goes with --trades, and takes the place of the topic")
    settings = Settings.from_environment()
    chosen = VerifyOptions(
        storage=options.store or options.store_option or settings.storage,
        symbols=options.symbol,
        timeframes=options.timeframe,
        start=options.begin_at,
        json=options.json,
        recordings=options.recording,
        lake=None if topic else options.trades,
        **({} if options.end_at is None else {"end": options.end_at}),
    )
    if options.klines is not None:
        from ashi_audit.verify_klines import verify_klines

        return asyncio.run(verify_klines(settings, chosen, options.klines))
    return asyncio.run(verify_trades(settings, chosen))


def rebuild(options: argparse.Namespace) -> int:
    """`ashi rebuild`."""
    import asyncio

    from ashi.contracts.errors import UsageError
    from ashi.runtime.settings import Settings
    from ashi_audit.rebuild import RebuildOptions, run_rebuild

    if options.begin_at >= options.end_at:
        raise UsageError("--from must be before --to")
    chosen = RebuildOptions(
        start=options.begin_at,
        end=options.end_at,
        symbols=options.symbol,
        dry_run=options.dry_run,
        lake=None if options.trades == "topic" else options.trades,
    )
    return asyncio.run(run_rebuild(Settings.from_environment(), chosen))


def lake_compact(options: argparse.Namespace) -> int:
    """`ashi lake compact`."""
    from ashi.runtime.settings import Settings
    from ashi_cli.lake import run_compact

    return run_compact(Settings.from_environment(_with_storage(options)).storage)


def lake_vacuum(options: argparse.Namespace) -> int:
    """`ashi lake vacuum`."""
    from ashi.runtime.settings import Settings
    from ashi_cli.lake import run_vacuum

    return run_vacuum(Settings.from_environment(_with_storage(options)).storage, options.retention)
