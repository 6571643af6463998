from __future__ import annotations

import gzip
import json
from collections import Counter
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

from ashi.contracts.decimals import parse_decimal
from ashi.contracts.trade import Trade, decode_trade, encode_trade
from ashi_ingest.recording.bundled import BUNDLED
from ashi_ingest.recording.format import Line, preflight, read_recording
from ashi_ingest.venues.registry import VENUES


def trades_of(venue: str, path: Path) -> list[Trade]:
    parser = VENUES[venue].parser()
    trades = []
    for line in read_recording(path):
        assert isinstance(line, Line)
        parsed = parser.parse(line.frame, line.received_at)
        assert parsed.rejected == []
        assert parsed.trades, "the bundled recordings hold trade frames only"
        trades += parsed.trades
    return trades


def test_bitflyer_has_162_executions_in_72_frames_on_four_products() -> None:
    (path,) = BUNDLED["bitflyer"]
    assert len(list(read_recording(path))) == 72
    assert Counter(trade.symbol for trade in trades_of("bitflyer", path)) == {
        "bitflyer:FX_BTC_JPY": 142,
        "bitflyer:ETH_JPY": 13,
        "bitflyer:BTC_USD": 4,
        "bitflyer:XRP_JPY": 3,
    }


def test_bitflyer_agrees_with_plain_json_in_ids_times_and_decimals() -> None:
    (path,) = BUNDLED["bitflyer"]
    expected = []
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        received_ns, frame = line.split(" ", 1)
        params = json.loads(frame, parse_float=Decimal)["params"]
        for row in params["message"]:
            day, _, time = row["exec_date"].removesuffix("Z").partition("T")
            hours, minutes, seconds = time.split(":")
            assert day == "2021-12-12"
            of_day = int(hours) * 3600 + int(minutes) * 60 + Decimal(seconds)
            expected.append(
                Trade(
                    symbol="bitflyer:" + params["channel"].removeprefix("lightning_executions_"),
                    trade_id=str(row["id"]),
                    price=row["price"],
                    size=Decimal(row["size"]),
                    side=row["side"].lower(),
                    traded_at=int((1_639_267_200 + of_day) * 1000) * 1000,
                    received_at=int(received_ns) // 1000,
                    sequence=row["id"],
                )
            )
    assert trades_of("bitflyer", path) == expected


def test_ethusdt_has_14515_trades_without_a_hole_across_midnight() -> None:
    counts = []
    trades: list[Trade] = []
    for path in BUNDLED["binance"]:
        found = trades_of("binance", path)
        counts.append(len(found))
        trades += found
    assert counts == [6106, 8409]
    assert {trade.symbol for trade in trades} == {"binance:ETHUSDT"}
    assert all(after.sequence == before.sequence + 1 for before, after in pairwise(trades))
    midnight = 1_723_161_600_000_000
    assert min(trade.traded_at for trade in trades) < midnight < max(trade.traded_at for trade in trades)


def test_ethusdt_agrees_with_plain_json_in_ids_times_and_decimals() -> None:
    for path in BUNDLED["binance"]:
        expected = []
        for line in gzip.decompress(path.read_bytes()).decode().splitlines():
            received_ns, frame = line.split(" ", 1)
            row = json.loads(frame)["data"]
            expected.append(
                Trade(
                    symbol="binance:ETHUSDT",
                    trade_id=str(row["t"]),
                    price=parse_decimal("p", row["p"]),
                    size=parse_decimal("q", row["q"]),
                    side="sell" if row["m"] else "buy",
                    traded_at=row["T"] * 1000,
                    received_at=int(received_ns) // 1000,
                    sequence=row["t"],
                )
            )
        assert trades_of("binance", path) == expected


def test_received_at_may_precede_traded_at() -> None:
    trades = trades_of("binance", BUNDLED["binance"][0])
    assert any(trade.received_at < trade.traded_at for trade in trades)


def test_every_bundled_trade_survives_the_contract() -> None:
    for venue, paths in BUNDLED.items():
        for path in paths:
            for trade in trades_of(venue, path):
                assert decode_trade(encode_trade(trade)) == trade


def test_the_recordings_and_their_licences_are_there() -> None:
    directory = BUNDLED["bitflyer"][0].parent
    assert "nkaz001" in (directory / "LICENSE.hftbacktest").read_text()
    assert "Bryant Moscon" in (directory / "LICENSE.cryptofeed").read_text()
    assert set(BUNDLED) <= set(VENUES)
    for paths in BUNDLED.values():
        for path in paths:
            preflight(path)


def test_the_acknowledgment_that_the_licence_asks_for_is_given() -> None:
    root = Path(__file__).parents[3]
    sentence = "This product includes software developed by Bryant Moscon (http://www.bryantmoscon.com/)"
    for name in ("NOTICE", "docs/recordings.md"):
        assert sentence in " ".join((root / name).read_text(encoding="utf-8").split())
