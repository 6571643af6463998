"""`ashi sink`: candles, or trades, into a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from ashi_cli import values
from ashi_cli.declaration import Command, OneOf, Option, Positional
from ashi_cli.extras import require_extras
from ashi_cli.shared_options import STORAGE, environment_with

_MODE: Final = OneOf()


def sink(
    *,
    store: Annotated[str, Positional("the kind of store: sqlite, postgres, lake")],
    storage: Annotated[str | None, STORAGE] = None,
    topic: Annotated[
        Literal["candles", "trades"],
        Option("what to store: candles with the feeds' gaps, or the trades, in a lake only (default: candles)"),
    ] = "candles",
    migrate: Annotated[bool, Option("make or upgrade the tables of the store, then exit", one_of=_MODE)] = False,
    delete_older: Annotated[
        int | None,
        Option(
            "delete candles that closed longer ago, also while workers write, then exit (postgres)",
            metavar="DURATION",
            parse=values.retention,
            one_of=_MODE,
        ),
    ] = None,
    timeframe: Annotated[
        Sequence[str],
        Option("with --delete-older: only of this; repeatable", metavar="TIMEFRAME", parse=values.timeframe),
    ] = (),
    restore_from: Annotated[
        str | None,
        Option(
            "bring what another store holds, as a lake, into this one, then exit",
            metavar="URL",
            parse=values.url,
            one_of=_MODE,
        ),
    ] = None,
    from_beginning: Annotated[
        bool,
        Option("read the topics from their beginning, not from where the group was, to fill a store", one_of=_MODE),
    ] = False,
) -> int:
    """`ashi sink`."""
    from ashi.contracts.errors import UsageError
    from ashi.runtime.settings import Settings

    require_extras("sink", store=store)
    from ashi_sinks.registry import STORES, migrate_store
    from ashi_sinks.registry import delete_older as delete_candles
    from ashi_sinks.worker import check_store, run_sink

    if store not in STORES:
        raise UsageError(f"there is no store {store!r}: write one of {', '.join(STORES)}")
    environment = environment_with(storage)
    for variable, value in STORES[store].settings.items():
        environment[variable] = environment.get(variable) or value
    settings = Settings.from_environment(environment)
    if timeframe and delete_older is None:
        raise UsageError("--timeframe goes with --delete-older")
    if restore_from is not None:
        require_extras("sink", store=restore_from)
        from ashi_sinks.restore import restore_store

        check_store(settings, store)
        restore_store(settings.storage, restore_from, lambda line: print(line, flush=True))
        return 0
    if migrate or delete_older is not None:
        check_store(settings, store)
        if delete_older is None:
            lines = migrate_store(settings.storage)
        else:
            lines = delete_candles(settings.storage, delete_older, timeframe)
        print("\n".join(lines) or "there are no candles")
        return 0
    return run_sink(settings, store, topic, from_beginning=from_beginning)


SINK: Final = Command(
    name="sink",
    text="run a sink worker: topic candles into a store",
    run=sink,
    epilog="""\
examples:
  ashi sink sqlite --storage sqlite:////data/candles.db
  ashi sink postgres --migrate --storage postgresql://ashi:secret@db/market
  ashi sink postgres --delete-older 90d --timeframe 1s --timeframe 1m     each day
  ashi sink postgres --restore-from lake:////data/lake
  ASHI_STORAGE_FILE=/run/secrets/storage ashi sink postgres
  ashi sink lake --storage lake:////data/lake
  ashi sink lake --storage lake+s3://bucket/market --topic trades""",
)
