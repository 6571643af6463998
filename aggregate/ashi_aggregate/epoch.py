"""The epoch: which settings the living state was built with. It stands in the compacted topic `ashi.meta`."""

from __future__ import annotations

import uuid
from operator import attrgetter
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec

from ashi.contracts.candle import MAX_EPOCH
from ashi.contracts.errors import ContractError, StateError
from ashi.contracts.timeframe import Timeframe, parse_timeframes
from ashi.contracts.topics import META, TRADES
from ashi.runtime.kafka.cluster.topics import require_topics
from ashi.runtime.kafka.connections.clients import make_producer
from ashi.runtime.kafka.connections.naming import kafka_name
from ashi.runtime.kafka.consuming.records import read_topic
from ashi.runtime.settings import Settings
from ashi.runtime.settings.parsers import format_duration
from ashi.runtime.wall_clock import now_us
from ashi_aggregate.core.window_state import WindowRules

_Claim = TypeVar("_Claim")

ACCEPTANCE: Final = 2
"""The number of the rules of acceptance: which records of `trades` count as trades.

To be raised with whatever changes that, since a replay then gives other candles of one version. 1: as versions did that
wrote no number. 2: nothing of a transaction that was aborted, nothing with another `schema`, no amount such as `1_000`.
"""
EPOCH_KEY: Final = b"epoch"
REBUILD_KEY: Final = b"rebuild"

EpochNumber: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_EPOCH)]
Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class Epoch(msgspec.Struct, frozen=True):
    """What changes only with the epoch: with other settings the same trades give other candles.

    Attributes:
        epoch: 0 for the first; see `ashi.contracts.candle.make_version`.
        timeframes: as in ASHI_TIMEFRAMES, finest first.
        allowed_lateness_us: µs; `correction_horizon_us` likewise.
        flat_candles: as ASHI_FLAT_CANDLES.
        begin: offset of each partition of `trades` at which the state begins to read; by default the log's first.
        acceptance: as ACCEPTANCE was.
        whole_from: no trade that is not read from `begin` on is stamped later than this, µs: 0 where all are read, None
            where the append time of the first record tells. See `ashi_aggregate.growth`.

    """

    epoch: EpochNumber
    timeframes: list[str]
    allowed_lateness_us: Natural
    correction_horizon_us: Natural
    flat_candles: Natural
    begin: dict[Natural, Natural] = {}
    acceptance: int = 1
    whole_from: int | None = None

    def __post_init__(self) -> None:
        """Raises ValueError, also when one is read, for timeframes that there are not."""
        if not self.timeframes:
            raise ValueError("there are no timeframes")
        for timeframe in self.timeframes:
            Timeframe.parse(timeframe)

    def has_settings_of(self, other: Epoch) -> bool:
        """Whether both give the same candles of the same trades."""
        mine, others = (msgspec.structs.replace(each, epoch=0, begin={}, whole_from=None) for each in (self, other))
        return mine == others

    def __str__(self) -> str:
        return (
            f"ASHI_TIMEFRAMES={','.join(self.timeframes)} "
            f"ASHI_ALLOWED_LATENESS={format_duration(self.allowed_lateness_us)} "
            f"ASHI_CORRECTION_HORIZON={format_duration(self.correction_horizon_us)} "
            f"ASHI_FLAT_CANDLES={self.flat_candles}"
        )

    def rules(self) -> WindowRules:
        """The rules of the windows."""
        return WindowRules(
            finest=parse_timeframes(self.timeframes[0])[0],
            lateness_us=self.allowed_lateness_us,
            horizon_us=self.correction_horizon_us,
            epoch=self.epoch,
            max_flat=self.flat_candles,
        )


class Rebuilt(msgspec.Struct, frozen=True):
    """That candles were rebuilt: see docs/decisions/0005-rebuild.md.

    Attributes:
        rebuild: the epoch that is in the versions of these candles. No state ever has it.
        epoch: that of the state at that time.
        start: open time of the first window rebuilt, µs; `end` that of the first one that was not.
        at: when, µs.

    """

    rebuild: EpochNumber
    epoch: EpochNumber
    start: int
    end: int
    at: int


def make_epoch(
    settings: Settings, number: int, begin: dict[int, int] | None = None, whole_from: int | None = None
) -> Epoch:
    """An epoch with these settings."""
    return Epoch(
        epoch=number,
        timeframes=[str(timeframe) for timeframe in settings.timeframes],
        allowed_lateness_us=settings.allowed_lateness_us,
        correction_horizon_us=settings.correction_horizon_us,
        flat_candles=settings.flat_candles,
        begin=begin or {},
        acceptance=ACCEPTANCE,
        whole_from=whole_from,
    )


def _check_acceptance(settings: Settings, epoch: Epoch) -> None:
    if epoch.acceptance != ACCEPTANCE:
        other = "an earlier" if epoch.acceptance < ACCEPTANCE else "a later"
        raise StateError(
            f"the state on this Kafka was built by {other} version of Ashi, to which other records of topic "
            f"{kafka_name(settings, TRADES)} count as trades (rules of acceptance {epoch.acceptance}, this version "
            f"has {ACCEPTANCE}; see docs/upgrading.md). One version of a candle would have two "
            "contents: go on with that version, or stop "
            "all aggregate workers and build the state anew with this one's `ashi aggregate reconfigure`"
        )


def differs_from(settings: Settings, epoch: Epoch) -> str | None:
    """Why a worker of this version with these settings does not go on from the state of an epoch; None if it does."""
    try:
        _check_settings(settings, epoch)
    except StateError as error:
        return str(error)
    return None


async def require_epoch(settings: Settings) -> Epoch:
    """The current epoch.

    Raises StateError when no aggregate worker has ever run on this Kafka, or those of another version run, to which
    other records count.
    """
    await require_topics(settings, [META])
    current = await current_epoch(settings)
    if current is None:
        raise StateError(
            f"topic {kafka_name(settings, META)} has no epoch, so no aggregate worker has ever run on this Kafka: "
            "start `ashi aggregate`, or correct ASHI_KAFKA_BOOTSTRAP"
        )
    _check_acceptance(settings, current)
    return current


async def last_rebuild(settings: Settings) -> int:
    """The epoch of the last rebuild; -1 if there was none."""
    numbers = [rebuilt.rebuild for _, rebuilt in await _read_rebuilds(settings)]
    return max(numbers, default=-1)


async def claim_rebuild(settings: Settings, epoch: Epoch, last: int, start: int, end: int) -> int:
    """Take the next epoch for rebuilt candles, greater than that of any candle there is, and give it.

    The workers go on in theirs, and `reconfigure` goes on beyond it. `epoch` and `last`: the current epoch and the last
    rebuild when the candles were made. Raises StateError when either has changed since, or when no epoch is left.
    """
    number = max(epoch.epoch, last) + 1
    check_left(number)
    rebuilt = Rebuilt(number, epoch.epoch, start, end, now_us())
    key = REBUILD_KEY + f"-{number}-{uuid.uuid4()}".encode()
    await write_meta(settings, key, rebuilt)
    # Of two at once both have written by now or will find the other's: the first in the log goes on.
    first = next(other_key for other_key, other in await _read_rebuilds(settings) if other.rebuild >= number)
    if first != key:
        raise StateError("another `ashi rebuild` has published candles since this one began: run it again")
    if await current_epoch(settings) != epoch:
        raise StateError("`ashi aggregate reconfigure` has begun a new state since this rebuild began: run it again")
    return number


async def _read_rebuilds(settings: Settings) -> list[tuple[bytes, Rebuilt]]:
    return await read_claims(settings, REBUILD_KEY, Rebuilt, "a rebuild")


async def read_claims(settings: Settings, prefix: bytes, kind: type[_Claim], name: str) -> list[tuple[bytes, _Claim]]:
    """All records of a kind in topic `ashi.meta`, whose keys begin so, in the order of the log, with their keys.

    Those of a key that a later record without a value has taken away are not among them. Raises BrokerError, and
    StateError for one that cannot be read, which is called by `name`: `an epoch`.
    """
    written: list[tuple[bytes, bytes]] = []
    async for record in read_topic(settings, META):
        if record.key is None or not record.key.startswith(prefix):
            continue
        if record.value is None:
            written = [each for each in written if each[0] != record.key]
        else:
            written.append((record.key, record.value))
    claims = []
    for key, value in written:
        try:
            claims.append((key, decode_claim(value, kind)))
        except ContractError as error:
            raise StateError(
                f"{name} in topic {kafka_name(settings, META)} cannot be read ({error}): {value[:200]!r}, under the "
                f"key {key[:200]!r}. Use the version of Ashi that wrote it; if none did, take it away: append a record "
                "with this key and without a value, as `kafka-console-producer` does with "
                "`--property parse.key=true --property null.marker=NULL`"
            ) from None
    return claims


def decode_claim(value: bytes, kind: type[_Claim]) -> _Claim:
    """What the value of a record of `ashi.meta` says. Raises ContractError."""
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ContractError(str(error)) from None


def check_left(number: int) -> None:
    """Raise StateError when there is no epoch of this number."""
    if number > MAX_EPOCH:
        raise StateError(f"epoch {MAX_EPOCH} is the last one: give this deployment topics of its own")


async def agree_on_epoch(settings: Settings) -> Epoch:
    """The current epoch; the first worker of all writes it down.

    Raises StateError when this worker's settings are not the epoch's, or other records count to this version.
    """
    current = await current_epoch(settings)
    if current is None:
        await write_epoch(settings, make_epoch(settings, 0))
        current = await current_epoch(settings)  # another worker may have been first
        assert current is not None  # noqa: S101
    _check_settings(settings, current)
    return current


def _check_settings(settings: Settings, current: Epoch) -> None:
    _check_acceptance(settings, current)
    wanted = make_epoch(settings, current.epoch)
    if not current.has_settings_of(wanted):
        raise StateError(
            f"the state on this Kafka was built with {current}; this worker has {wanted}. One version of a candle "
            "would have two contents: start it with the settings of the state, or stop all aggregate workers and build "
            "the state anew with `ashi aggregate reconfigure`"
        )


async def check_epoch(settings: Settings, epoch: Epoch) -> None:
    """Raise StateError unless `epoch` is still the current one: it may have been raised since this worker began."""
    current = await current_epoch(settings)
    if current != epoch:
        raise StateError(
            f"the state has been reconfigured since this worker started: it began in epoch {epoch.epoch} with {epoch}, "
            f"now it is {current.epoch if current else None} with {current}; start the worker again"
        )


async def current_epoch(settings: Settings) -> Epoch | None:
    """The current epoch, of whatever version; None when no aggregate worker has ever run on this Kafka.

    The greatest; of two that were written down at once by workers that knew of none, the first. Raises BrokerError when
    the topic is missing or Kafka is out of reach, StateError when the epoch cannot be read.
    """
    written = await read_claims(settings, EPOCH_KEY, Epoch, "an epoch")
    return max((epoch for _, epoch in written), key=attrgetter("epoch"), default=None)


async def write_epoch(settings: Settings, epoch: Epoch) -> None:
    """Write an epoch down. Raises BrokerError."""
    # A key of its own for each record: compaction must not make the second of two the first.
    await write_meta(settings, EPOCH_KEY + f"-{epoch.epoch}-{uuid.uuid4()}".encode(), epoch)


async def write_meta(settings: Settings, key: bytes, value: msgspec.Struct) -> None:
    """Append a record to topic `ashi.meta`. Raises BrokerError."""
    producer = make_producer(settings)
    await producer.start()
    try:
        await producer.send_and_wait(META, key=key, value=msgspec.json.encode(value))
    finally:
        await producer.stop()
