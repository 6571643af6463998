"""The topics that can be read, and what counts in each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from ashi.client.newest import Newest
from ashi.client.position import Since, start_of
from ashi.client.reader import Reader, Source, UnreadableRecord
from ashi.contracts.candle import Candle
from ashi.contracts.errors import UsageError
from ashi.contracts.feed import FeedGap, FeedStatus
from ashi.contracts.instrument import Instrument
from ashi.contracts.records import (
    candle_in,
    feed_gap_in,
    feed_status_in,
    instrument_in,
    is_loaded,
    live_candle_in,
    signal_in,
    split_live_key,
)
from ashi.contracts.signal import Signal, signal_rank, signal_slot
from ashi.contracts.symbol import split_symbol
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.topics import CANDLES, CANDLES_LIVE, FEED_GAPS, FEED_STATUS, INSTRUMENTS, SIGNALS
from ashi.runtime.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from ashi.contracts.records import KafkaRecord

REMEMBERED: Final = 100_000
"""How many versions a reader remembers, at some 300 bytes each. What may come again unchanged, after a crash of a
worker, is what was written within a few seconds before it."""

_Message = TypeVar("_Message")


def kafka_settings(
    bootstrap: str,
    *,
    security_protocol: str = "PLAINTEXT",
    sasl_mechanism: str | None = None,
    username: str | None = None,
    password: str | None = None,
    token_file: str | Path | None = None,
    token_command: str | None = None,
    ca_file: str | Path | None = None,
    cert_file: str | Path | None = None,
    key_file: str | Path | None = None,
    topic_prefix: str = "",
    rack: str | None = None,
) -> Settings:
    """How to reach Kafka, where it does not stand in the environment (`Settings.from_environment()`).

    Args:
        bootstrap: brokers to ask first, `host:port,host:port`.
        security_protocol: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
        sasl_mechanism: `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`; with `SASL_…`, as
            `username` and `password`.
        username: to log in with.
        password: to log in with; it is shown by no repr and no error.
        token_file: a token to log in with, read for each connection; with `OAUTHBEARER`, as the next.
        token_command: a command that prints such a token.
        ca_file: certificates (PEM) that the brokers' are checked against; the system's if None.
        cert_file: our own certificate (PEM), for brokers that ask for one; with `key_file`.
        key_file: its private key (PEM).
        topic_prefix: what the names of the topics in Kafka begin with, as `ASHI_TOPIC_PREFIX` of the stages.
        rack: the rack or zone of this program, to read from a copy there.

    Raises SettingsError, a UsageError, for what is wrong or contradicts; it names the setting of docs/settings.md.

    """
    given = {
        "ASHI_KAFKA_BOOTSTRAP": bootstrap,
        "ASHI_KAFKA_SECURITY_PROTOCOL": security_protocol,
        "ASHI_KAFKA_SASL_MECHANISM": sasl_mechanism,
        "ASHI_KAFKA_USERNAME": username,
        "ASHI_KAFKA_PASSWORD": password,
        "ASHI_KAFKA_TOKEN_FILE": None if token_file is None else str(token_file),
        "ASHI_KAFKA_TOKEN_COMMAND": token_command,
        "ASHI_KAFKA_CA_FILE": None if ca_file is None else str(ca_file),
        "ASHI_KAFKA_CERT_FILE": None if cert_file is None else str(cert_file),
        "ASHI_KAFKA_KEY_FILE": None if key_file is None else str(key_file),
        "ASHI_TOPIC_PREFIX": topic_prefix,
        "ASHI_KAFKA_RACK": rack,
    }
    return Settings.from_environment({variable: value for variable, value in given.items() if value is not None})


def read_candles(
    kafka: Settings | str | None = None,
    *,
    symbols: Collection[str] | None = None,
    timeframes: Collection[str | Timeframe] | None = None,
    since: Since = "beginning",
    follow: bool = True,
    on_unreadable: Callable[[UnreadableRecord], None] | None = None,
    remember: int = REMEMBERED,
    loaded: bool = True,
) -> Reader[Candle]:
    """The closed candles of topic `candles`, each when it is closed and again when it is corrected.

    Of one (symbol, timeframe, open_time) each candle that is handed out has a greater `version` than the one before, so
    whoever keeps the last one of each keeps the right one. The candles of a symbol come in the order they were written.

    That takes memory: the versions of the last `remember` candles, 30 MB for 100,000 and no more however long it reads
    (and what the client library fetches ahead, at most 1 MB a partition). A candle that was forgotten, or handed out
    before the position that is read on from, may be handed out again, or in an older version: where that matters, keep
    the greater `version` where the candles are stored.

    Args:
        kafka: where to read: settings, the address `host:port` of a broker that asks for no login, or None for the
            settings in the environment (`ASHI_KAFKA_BOOTSTRAP` and so on).
        symbols: `venue:MARKET`; None for all. Records of others are not looked at.
        timeframes: `1m` or Timeframe; None for all.
        since: where to begin, see `Since`.
        follow: False ends where the topic ends when the reading begins; True waits for more.
        on_unreadable: takes records that hold no candle, and reading goes on; without it they raise ContractError.
        remember: see above.
        loaded: False passes over candles that `ashi history load` has made of files: of years, perhaps, from before all
            that was ever read live.

    Raises UsageError and ContractError for arguments that are wrong; what iterating raises says `Reader`.

    """
    names = _timeframe_names(timeframes)
    newest = _newest_candles(remember)

    def wanted(candle: Candle) -> bool:
        return (names is None or candle.timeframe in names) and newest.is_new(candle)

    source = Source(CANDLES, candle_in if loaded else _candle_not_loaded, _keys(symbols), wanted)
    return _reader(kafka, source, since, follow, on_unreadable)


def read_live_candles(
    kafka: Settings | str | None = None,
    *,
    symbols: Collection[str] | None = None,
    timeframes: Collection[str | Timeframe] | None = None,
    since: Since = "beginning",
    follow: bool = True,
    on_unreadable: Callable[[UnreadableRecord], None] | None = None,
    remember: int = REMEMBERED,
) -> Reader[Candle]:
    """The candles in progress of topic `candles.live`: what the windows that have not closed hold so far.

    Of one (symbol, timeframe, open_time) each that is handed out has a greater `version` than the one before, and what
    it holds is what the closed candle would hold if no more trades came. The closed one comes in `candles` and never
    has a smaller version; no order holds between the two topics, so whoever reads both leaves out an update whose
    version is not greater than that of the candle which has closed.

    The topic keeps the last update of each (symbol, timeframe) for a day, so from the beginning (the default) a reader
    gets the present state of all, after some that are older; `since="now"` gives a symbol when next it trades. Its
    last update may be of a window that has closed since. Arguments, memory and errors: as of `read_candles`.
    """
    names = _timeframe_names(timeframes)
    keys = None if symbols is None and names is None else _LiveKeys(_keys(symbols), names)
    source = Source(CANDLES_LIVE, live_candle_in, keys, _newest_candles(remember).is_new)
    return _reader(kafka, source, since, follow, on_unreadable)


def read_feed_gaps(
    kafka: Settings | str | None = None,
    *,
    symbols: Collection[str] | None = None,
    since: Since = "beginning",
    follow: bool = True,
    on_unreadable: Callable[[UnreadableRecord], None] | None = None,
    remember: int = REMEMBERED,
) -> Reader[FeedGap]:
    """The gaps of topic `feed.gaps`, each when it opens and again whenever it changes.

    Of one (symbol, from_time) each that is handed out has a greater `updated_at` than the one before. A candle whose
    time overlaps a gap that is not `repaired` may lack trades. Arguments, memory and errors: as of `read_candles`.
    """
    newest = Newest[FeedGap](
        key=lambda gap: (gap.symbol, gap.from_time), rank=lambda gap: gap.updated_at, limit=remember
    )
    return _reader(kafka, Source(FEED_GAPS, feed_gap_in, _keys(symbols), newest.is_new), since, follow, on_unreadable)


def read_feed_status(
    kafka: Settings | str | None = None,
    *,
    symbols: Collection[str] | None = None,
    since: Since = "beginning",
    follow: bool = True,
    on_unreadable: Callable[[UnreadableRecord], None] | None = None,
) -> Reader[FeedStatus]:
    """How the feeds are, from topic `feed.status`: of each symbol the last message says how it is now.

    The topic keeps the last message of each symbol for ever, so from the beginning (the default) it gives the present
    state of all, and then each change. Every message is handed out and nothing is remembered. Arguments and errors are
    those of `read_candles`.
    """
    source = Source(FEED_STATUS, feed_status_in, _keys(symbols), lambda _: True)
    return _reader(kafka, source, since, follow, on_unreadable)


def read_instruments(
    kafka: Settings | str | None = None,
    *,
    symbols: Collection[str] | None = None,
    since: Since = "beginning",
    follow: bool = True,
    on_unreadable: Callable[[UnreadableRecord], None] | None = None,
) -> Reader[Instrument]:
    """What the venues say of their markets, from topic `instruments`: of each symbol the last message is how it is now.

    The topic keeps the last message of each symbol for ever, so from the beginning (the default) it gives the present
    state of all, and then each change. Every message is handed out and nothing is remembered. Arguments and errors are
    those of `read_candles`.
    """
    source = Source(INSTRUMENTS, instrument_in, _keys(symbols), lambda _: True)
    return _reader(kafka, source, since, follow, on_unreadable)


def read_signals(
    kafka: Settings | str | None = None,
    *,
    symbols: Collection[str] | None = None,
    strategies: Collection[str] | None = None,
    since: Since = "beginning",
    follow: bool = True,
    on_unreadable: Callable[[UnreadableRecord], None] | None = None,
    remember: int = REMEMBERED,
) -> Reader[Signal]:
    """The signals of topic `signals`, each when it is given and again when it is superseded.

    Of one (strategy, symbol, timeframe, open_time) each that is handed out has a greater `signal_rank` than the one
    before, so whoever keeps the last one of each keeps the right one; a signal that is `superseded` is handed out
    too, as it takes back the one before it. `strategies`: their names with parameters, as `Signal.strategy` has them;
    None for all. The other arguments, memory and errors: as of `read_candles`.
    """
    if strategies is not None and (isinstance(strategies, str) or not strategies):
        raise UsageError(f"strategies {strategies!r} is not a collection of names: leave it out to read all")
    names = None if strategies is None else frozenset(strategies)
    newest = Newest[Signal](key=signal_slot, rank=signal_rank, limit=remember)

    def wanted(signal: Signal) -> bool:
        return (names is None or signal.strategy in names) and newest.is_new(signal)

    return _reader(kafka, Source(SIGNALS, signal_in, _keys(symbols), wanted), since, follow, on_unreadable)


def _reader(
    kafka: Settings | str | None,
    source: Source[_Message],
    since: Since,
    follow: bool,
    on_unreadable: Callable[[UnreadableRecord], None] | None,
) -> Reader[_Message]:
    start = start_of(since, source.topic)
    return Reader(_settings(kafka), source, start=start, follow=follow, on_unreadable=on_unreadable)


def _settings(kafka: Settings | str | None) -> Settings:
    if kafka is None:
        return Settings.from_environment()
    return kafka_settings(kafka) if isinstance(kafka, str) else kafka


def _keys(symbols: Collection[str] | None) -> frozenset[bytes] | None:
    if symbols is None:
        return None
    if isinstance(symbols, str) or not symbols:
        raise UsageError(
            f"symbols {symbols!r} is not a collection of symbols: write ['bitflyer:BTC_JPY'], or leave it out"
        )
    for symbol in symbols:
        split_symbol(symbol)
    return frozenset(symbol.encode() for symbol in symbols)


def _timeframe_names(timeframes: Collection[str | Timeframe] | None) -> frozenset[str] | None:
    if timeframes is None:
        return None
    if not timeframes:
        raise UsageError("timeframes is empty, so no candle would ever come: leave it out to read all")
    return frozenset(_timeframe_name(timeframe) for timeframe in timeframes)


class _LiveKeys:
    """The keys in `candles.live` of some symbols and timeframes; None stands for all."""

    def __init__(self, symbols: frozenset[bytes] | None, names: frozenset[str] | None) -> None:
        self._symbols = symbols
        self._names = None if names is None else frozenset(name.encode() for name in names)

    def __contains__(self, key: object) -> bool:
        """A record without a key has none of them."""
        if not isinstance(key, bytes):
            return False
        symbol, name = split_live_key(key)
        return (self._symbols is None or symbol in self._symbols) and (self._names is None or name in self._names)


def _candle_not_loaded(record: KafkaRecord) -> Candle | None:
    return None if is_loaded(record) else candle_in(record)


def _newest_candles(remember: int) -> Newest[Candle]:
    return Newest(
        key=lambda candle: (candle.symbol, candle.timeframe, candle.open_time),
        rank=lambda candle: candle.version,
        limit=remember,
    )


def _timeframe_name(timeframe: str | Timeframe) -> str:
    return str(Timeframe.parse(timeframe) if isinstance(timeframe, str) else timeframe)
