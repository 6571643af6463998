"""What is fuzzed: every parser of bytes that others have written, each with what must hold whatever they are.

A target takes bytes and gives how much of them was accepted. It raises AssertionError, or whatever the parser raised
that it does not document, where something is wrong. What is accepted is written out and read again, and must be the
same.
"""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from functools import partial
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

import msgspec
from websockets.asyncio.client import ClientConnection

from ashi.client.position import Position, start_of
from ashi.contracts.candle import decode_candle, encode_candle
from ashi.contracts.errors import ContractError, RecordingError, StateError, UsageError
from ashi.contracts.feed import decode_feed_gap, decode_feed_status, encode_feed
from ashi.contracts.instrument import decode_instrument, encode_instrument
from ashi.contracts.records import candle_in, live_candle_in, split_live_key, trade_in
from ashi.contracts.signal import decode_signal, encode_signal
from ashi.contracts.symbol import MAX_MARKET_BYTES, split_symbol
from ashi.contracts.timeframe import Timeframe
from ashi.contracts.trade import Trade, decode_trade, encode_trade
from ashi.runtime.kafka.cluster.offsets import Committed
from ashi.runtime.kafka.consuming.raw_batches import RawBatches
from ashi.runtime.settings import Settings, SettingsError
from ashi.runtime.settings.catalogue import CATALOGUE
from ashi.runtime.settings.parsers import endpoint, parse_bootstrap, redact_url
from ashi_aggregate import WindowRules
from ashi_aggregate.chunk import Chunk, ChunkDecoder, SymbolTrades
from ashi_aggregate.core.codec import ROW_FORMAT, decode_list, decode_marker, decode_row, encode, rank_of, read_stored
from ashi_aggregate.core.symbol import SymbolAggregator
from ashi_aggregate.epoch import Epoch, Rebuilt, decode_claim, differs_from, make_epoch
from ashi_aggregate.loads import JoinedCandles, Load
from ashi_aggregate.native.columns import ScannedRecords, scan
from ashi_aggregate.native.decoder import NativeDecoder
from ashi_aggregate.native.kernel import Malformed
from ashi_aggregate.reconfigure import Growth
from ashi_aggregate.refused import gap_of
from ashi_audit.verify_klines import read_file
from ashi_chart.pages.security import Guard
from ashi_chart.wire import MOST_BARS, AskSeries, decode_asked
from ashi_ingest.recording.format import BadLine, read_recording
from ashi_ingest.recording.parquet import MAGIC as PARQUET
from ashi_ingest.recording.reader import RecordingReader
from ashi_ingest.recording.trade_files import FileOptions, TradeFileReader
from ashi_ingest.venues.base import Answer, Missing, Request
from ashi_ingest.venues.registry import VENUES
from ashi_ingest.websocket.frames import FrameConnection
from ashi_sinks.lake.location import lake_of
from ashi_sinks.postgres.address import Address
from ashi_sinks.read_log import decode_note
from ashi_sinks.registry import store_name
from ashi_strategies.live.progress import read_progress
from kafka_topics.fetched_batches import encode_batch, kernel
from servers.websocket_wire import MAX_FRAME, outcome_of

Target = Callable[[bytes], int]

NOW: Final = 1_800_000_000_000_000
MOST_STEPS: Final = 60
"""So many requests of one plan are answered, each by the next line; a venue may have any number of pages."""
CUT: Final = b"\n--\n"
"""Between the parts of an input that has several."""
MARKETS: Final = {"bitflyer": "BTC_JPY", "gmo": "BTC_JPY", "binance": "BTCUSDT", "binance-usdm": "BTCUSDT"}
_PARTITIONS: Final = 4


def _trade(symbol: str, number: int) -> Trade:
    """One a second."""
    at = NOW - 1_000_000_000 + number * 1_000_000
    return Trade(symbol, str(number), Decimal(1), Decimal(1), "buy", at, at, number)


def _can_be_told(text: str) -> None:
    """An error becomes a line of a log, and a header of a dead letter."""
    assert len(text.encode()) < 2_000


def _same_trade(trade: Trade) -> None:
    """What is published of it is what readers get."""
    message = encode_trade(trade)
    assert decode_trade(message) == trade
    assert encode_trade(decode_trade(message)) == message
    assert len(message) < 2_000


def frames_of(venue: str) -> Target:
    """Frames of a websocket, one after the other over one connection."""

    def run(data: bytes) -> int:
        live = VENUES[venue].live(has_key=True)
        parser, doubt, accepted = live.parser(), VENUES[venue].doubt, 0
        for frame in data.split(CUT):
            parsed = parser.parse(frame, NOW)
            for trade in parsed.trades:
                _same_trade(trade)
                assert trade.symbol.startswith(f"{venue}:")
            for rejected in parsed.rejected:
                assert len(rejected.reason) <= 400
                rejected.reason.encode()
                assert rejected.symbol is None or split_symbol(rejected.symbol)
            accepted += len(parsed.trades) + (live.control(frame) is not None)
            if doubt is not None:
                doubt(frame)
        return accepted

    return run


def websocket(data: bytes) -> int:
    """What a server sends after the handshake, a part for all that is read at once; the library must make the same."""
    parts = data.split(CUT)
    sent = b"".join(parts)
    left = [-1 - len(sent) + end for end in accumulate(map(len, parts))]

    async def run() -> int:
        theirs = await outcome_of(ClientConnection, sent, left)
        ours = await outcome_of(partial(FrameConnection, max_frame=MAX_FRAME), sent, left)
        assert ours == theirs
        return len(ours.messages)

    with patch("websockets.frames.secrets.token_bytes", bytes):  # masks of answers, so that both write the same
        return asyncio.run(run())


def answers_of(venue: str) -> Target:
    """Answers of a REST interface: to everything that is asked, whatever was asked."""
    description = VENUES[venue]

    def run(data: bytes) -> int:
        live = description.live(has_key=True)
        market = MARKETS[venue]
        first, last = (_trade(f"{venue}:{market}", number) for number in (1, 900))
        bodies = data.split(CUT)
        accepted = 0
        with suppress(ContractError):
            accepted += sum(1 for listed in live.read_markets(bodies[0]) if listed.market)
        if live.statement is not None:
            with suppress(ContractError):
                accepted += len(live.statement.read(bodies[0]))
        if description.klines is not None:
            for timeframe in (Timeframe.parse("1m"), Timeframe.parse("1d")):
                with suppress(ContractError):
                    accepted += len(description.klines.read(timeframe, bodies[0]))
        for plan in (
            lambda: live.repair(market, [first], None),
            lambda: live.repair(market, [first], last),
            lambda: live.history(market, NOW - 60_000_000, NOW),
        ):
            with suppress(ContractError):
                accepted += _follow(plan(), bodies)
        return accepted

    return run


def _follow(plan: Any, bodies: list[bytes]) -> int:
    yielded, to_send = 0, None
    for number in range(MOST_STEPS):
        try:
            step = plan.send(to_send)
        except StopIteration:
            return yielded
        to_send = None
        if isinstance(step, Request):
            assert step.path.startswith("/")
            assert all(isinstance(value, str) and len(value) < 200 for value in step.parameters.values())
            to_send = Answer(bodies[min(number, len(bodies) - 1)], NOW + 500_000 * number)
        elif not isinstance(step, Missing):
            for trade in step:
                _same_trade(trade)
            yielded += len(step)
    return yielded


def message_of(decode: Callable[[bytes], Any], write: Callable[[Any], bytes]) -> Target:
    """A message of a topic."""

    def run(data: bytes) -> int:
        try:
            message = decode(data)
        except ContractError as error:
            _can_be_told(str(error))
            return 0
        written = write(message)
        again = decode(written)
        assert again == message
        assert write(again) == written
        split_symbol(message.symbol)
        assert len(message.symbol.partition(":")[2].encode()) <= MAX_MARKET_BYTES
        return 1

    return run


def _record(offset: int, key: bytes | None, value: bytes | None, schema: bytes | None = None) -> Any:
    headers = () if schema is None else (("schema", schema),)
    return SimpleNamespace(
        offset=offset, key=key, value=value, headers=headers, timestamp=NOW // 1000, timestamp_type=1
    )


def chunk_of_trades(data: bytes) -> int:
    """Records of topic `trades`, read together, and one by one: what becomes of each must not depend on that."""
    values = data.split(CUT)
    keys: list[bytes | None] = []
    for value in values:
        with suppress(ContractError):
            keys.append(decode_trade(value).symbol.encode())
            continue
        keys.append(b"binance:BTCUSDT")
    records = [_record(at, key, value or None) for at, (key, value) in enumerate(zip(keys, values, strict=True))]

    def read(parts: list[list[Any]], partition: int) -> tuple[dict[int, Trade], set[int]]:
        decoder = ChunkDecoder(_PARTITIONS)
        taken: dict[int, Trade] = {}
        refused: set[int] = set()
        for part in parts:
            by_symbol, rejected = decoder.decode(Chunk(partition, part[0].offset, part[-1].offset + 1, part))
            for group in by_symbol.values():
                taken |= dict(zip(group.offsets, group.trades, strict=True))
            refused |= {each.record.offset for each in rejected}
            for each in rejected:
                gap_of(each)
        return taken, refused

    accepted = 0
    for partition in (0, 1):
        together, one_by_one = read([records], partition), read([[record] for record in records], partition)
        assert together == one_by_one
        assert together[0].keys() | together[1] == set(range(len(records)))
        assert _natively(records, partition) == together
        accepted += len(together[0])
    return accepted


def _natively(records: list[Any], partition: int) -> tuple[dict[int, Trade], set[int]]:
    """The same by the native library, of the batch that Kafka would send."""
    scanned = scan(kernel(), RawBatches(encode_batch(records), len(records)), 0)
    by_symbol, rejected = NativeDecoder(_PARTITIONS).decode(Chunk(partition, 0, len(records), scanned))
    taken: dict[int, Trade] = {}
    for group in by_symbol.values():
        trades = group if isinstance(group, SymbolTrades) else group.trades()
        taken |= dict(zip(trades.offsets, trades.trades, strict=True))
    return taken, {each.record.offset for each in rejected}


def batches(data: bytes) -> int:
    """Bytes that are said to be record batches, as the native library reads those of trades and of changelogs."""
    taken = 0
    for begin in (0, 3):
        with suppress(Malformed):
            scanned = ScannedRecords(kernel(), kernel().scan(data, begin, 64))
            for record in scanned:
                assert record.key is None or record.key in data
                taken += 1
            groups, _ = NativeDecoder(1).decode(Chunk(0, 0, 10**9, scanned))
            rules = WindowRules(finest=Timeframe.parse("1m"))
            aggregators = {symbol: SymbolAggregator((rules.finest,), rules) for symbol in groups}
            NativeDecoder(1).fold(groups, aggregators, rules)
        with suppress(Malformed):
            for key, value in kernel().newest(data, begin, 64, ROW_FORMAT).rows:
                assert key is None or key in data
                assert value is None or value in data
    return taken


def record_in_place(data: bytes) -> int:
    """A record by key, header and value, as every reader takes it."""
    key, _, rest = data.partition(CUT)
    schema, _, value = rest.partition(CUT)
    accepted = 0
    for read in (trade_in, candle_in, live_candle_in):
        with suppress(ContractError):
            message = read(_record(0, key, value, schema or None))
            assert message.symbol.encode() in key
            accepted += 1
    split_live_key(key)
    return accepted


def record_of_meta(data: bytes) -> int:
    """The value of a record of `ashi.meta`: what it says of the state, and what a worker makes of that."""
    accepted = 0
    for kind in (Epoch, Rebuilt, Growth, Load):
        try:
            said = decode_claim(data, kind)
        except ContractError:
            continue
        assert decode_claim(msgspec.json.encode(said), kind) == said
        accepted += 1
        if isinstance(said, Epoch):
            assert said.rules().epoch == said.epoch
            assert make_epoch(_SETTINGS, said.epoch).epoch == said.epoch
            differs_from(_SETTINGS, said)
        elif isinstance(said, Load):
            JoinedCandles([said])
    return accepted


def place_of_reader(data: bytes) -> int:
    """A text that somebody has kept for us: how far a topic was read, beside an offset or in a file of theirs."""
    text, accepted = data.decode(errors="replace"), 0
    with suppress(ContractError):
        position = Position.from_json(text)
        assert Position.from_json(position.to_json()) == position
        with suppress(UsageError):
            start_of(position, "candles")
        accepted += 1
    if (note := decode_note(text)) is not None:
        assert decode_note(msgspec.json.encode(note).decode()) == note
        accepted += 1
    return accepted + (read_progress({0: Committed(0, text)}) is not None)


def row_of_state(data: bytes) -> int:
    """A value of a changelog: a row, a marker or a list. Whoever may write there may write wrong rows, and no more."""
    accepted = 0
    for decode in (decode_row, decode_marker, decode_list):
        with suppress(StateError):
            state = decode(data)
            try:
                written = encode(state)
            except OverflowError:  # rows in JSON, which nobody writes any more, may have numbers of any size
                assert data[:1] == b"{"
                continue
            assert decode(written) == state or "NaN" in repr(state)
            accepted += 1
    with suppress(StateError):
        assert len(rank_of(data)) == 8
        stored = read_stored(data)
        assert stored.head.symbol == decode_row(data).symbol
    return accepted


def recording_of(venue: str) -> Target:
    """A file that somebody says is a recording: plain, or whatever gzip makes of it."""

    def run(data: bytes) -> int:
        reader, taken = RecordingReader(venue), 0
        with _file(data) as path, suppress(RecordingError):
            for number, line in enumerate(read_recording(path)):
                if isinstance(line, BadLine):
                    line.reason.encode()
                reading = reader.read(line)
                taken += len(reading.trades)
                for trade in reading.trades:
                    _same_trade(trade)
                if number > 2_000:
                    break
        return taken + len(reader.finish())

    return run


def file_of_trades(venue: str) -> Target:
    """A file of trades as the venue publishes them, in whatever it is packed; Parquet is left to its library."""
    options = FileOptions(MARKETS[venue])

    def run(data: bytes) -> int:
        taken = 0
        if data.startswith(PARQUET):
            return taken
        with _file(data) as path, suppress(RecordingError, UsageError):
            for batch in TradeFileReader(venue, options).read(path):
                for bad in batch.bad:
                    bad.reason.encode()
                columns = batch.columns
                assert batch.rows == len(columns or ()) + len(batch.bad)
                if columns is None:
                    continue
                trades = columns.trades()  # each as the contract wants it, or it raises
                taken += len(trades)
                # Written without objects they are what `encode_trade` makes of each.
                assert columns.messages() == [encode_trade(trade) for trade in trades]
                if taken > 2_000:
                    break
        return taken

    return run


def file_of_klines(data: bytes) -> int:
    """A file of klines, CSV or .zip."""
    taken = 0
    with _file(data) as path, suppress(UsageError):
        for _, _kline in zip(range(2_000), read_file(path), strict=False):
            taken += 1
    return taken


_VARIABLES: Final = [setting.variable for setting in CATALOGUE]
_SECRETS: Final = frozenset(setting.variable for setting in CATALOGUE if setting.secret)
_CANARY: Final = "Zq7x9kPw"
"""At the end of every secret."""


def settings_of_environment(data: bytes) -> int:
    """An environment, `NAME=value` a line, where a name may be the number of a setting."""
    environment: dict[str, str] = {}
    for line in data.decode(errors="replace").replace("\0", "").split("\n")[:40]:
        name, _, value = line.partition("=")
        if name.isascii() and name.isdigit() and len(name) < 4:
            name = _VARIABLES[int(name) % len(_VARIABLES)]
        if not name.endswith("_FILE"):  # which would be read, whatever it is
            environment[name] = value + _CANARY if name in _SECRETS and value.strip() else value
    try:
        shown, accepted = repr(Settings.from_environment(environment)), 1
    except SettingsError as error:
        shown, accepted = str(error), 0
    assert _CANARY not in shown
    return accepted


def address(data: bytes) -> int:
    """Texts that say where something is: of a store, a broker, a venue; and what browsers say of theirs."""
    text = data.decode(errors="replace").replace("\0", "")
    accepted = 0
    for read in (store_name, Address, lake_of):
        with suppress(UsageError):
            read(text)
            accepted += 1
    for parse in (parse_bootstrap, endpoint("ws", "wss"), endpoint("http", "https")):
        with suppress(ValueError):
            parse(text)
            accepted += 1
    shown = redact_url(text)
    assert redact_url(shown) == shown
    guard = _GUARD
    host, _, origin = text.partition("\n")
    if guard.takes_host(host):
        accepted += 1
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() or host.endswith(":") else host
        if name.startswith("["):  # which may be written in many ways, as [0::1]
            name = socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, name.strip("[]")))
        assert name.lower() in {"localhost", "charts.example.com"} or name.startswith(("127.", "::")), name
    if origin and guard.takes_origin(origin, host):
        assert origin.lower() in {f"http://{host.lower()}", f"https://{host.lower()}", "https://charts.example.com"}
    with suppress(ContractError):
        venue, market = split_symbol(text)
        accepted += 1
        for part in (venue, market):
            assert not set(part) & set("\0\r\n\t'\"<>\\ ;`$%&?#"), part
        assert not market.startswith(("/", "."))
    return accepted


def asked_of_chart(data: bytes) -> int:
    """What a page sends over its websocket."""
    accepted = 0
    for text in (data, data.decode(errors="replace")):
        with suppress(ContractError):
            asked = decode_asked(text)
            accepted += 1
            if isinstance(asked, AskSeries):
                assert 1 <= asked.bars <= MOST_BARS
                assert len(asked.symbol) <= 100
                json.dumps(asked.symbol)
    return accepted


class _file:  # noqa: N801 - as `open` is
    """The bytes as a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __enter__(self) -> Path:
        _SCRATCH.write_bytes(self._data)
        return _SCRATCH

    def __exit__(self, *_: object) -> None:
        pass


_SCRATCH: Final = Path(tempfile.mkdtemp(prefix="ashi-fuzz-"), "input")
_GUARD: Final = Guard.of(Settings.from_environment({"ASHI_CHART_ORIGINS": "https://charts.example.com"}))

_SETTINGS: Final = Settings.from_environment({})

TARGETS: Final[dict[str, Target]] = {
    **{f"frames-{venue}": frames_of(venue) for venue in VENUES},
    **{f"answers-{venue}": answers_of(venue) for venue in VENUES},
    "websocket": websocket,
    "trades": chunk_of_trades,
    "batches": batches,
    "trade": message_of(decode_trade, encode_trade),
    "candle": message_of(decode_candle, encode_candle),
    "feed-gap": message_of(decode_feed_gap, encode_feed),
    "feed-status": message_of(decode_feed_status, encode_feed),
    "instrument": message_of(decode_instrument, encode_instrument),
    "signal": message_of(decode_signal, encode_signal),
    "record": record_in_place,
    "state": row_of_state,
    "meta": record_of_meta,
    "place": place_of_reader,
    "recording": recording_of("bitflyer"),
    **{f"trade-file-{venue}": file_of_trades(venue) for venue in VENUES},
    "klines-file": file_of_klines,
    "settings": settings_of_environment,
    "address": address,
    "chart": asked_of_chart,
}
