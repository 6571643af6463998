"""Klines as Binance and GMO Coin answer with them, made of trades by the oracle, and a server that does."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ashi.contracts import Trade
from oracle import candles_of, seconds

MINUTE = 60_000_000


def rows_of(trades: list[Trade], timeframe: str = "1m", *, unit: int = 1_000, places: int = 8) -> list[list[Any]]:
    """Klines by the oracle, as Binance writes them: `unit` µs a tick, amounts cut to so many places."""

    def text(value: Decimal) -> str:
        return f"{value.quantize(Decimal(1).scaleb(-places), rounding=ROUND_DOWN):f}"

    rows = []
    for (_, _, opened), kline in sorted(candles_of(trades, [timeframe]).items()):
        closed = opened + seconds(timeframe) * 1_000_000
        amounts = [text(kline[name]) for name in ("open", "high", "low", "close", "volume")]
        taker = [text(kline["taker_buy_volume"]), text(kline["taker_buy_quote_volume"])]
        quote = text(kline["quote_volume"])
        rows.append([opened // unit, *amounts, closed // unit - 1, quote, kline["trade_count"], *taker, "0"])
    return rows


@contextmanager
def serving(answer: Any) -> Any:
    """A server whose answers are `answer(path, query)`: status and an object for JSON."""
    seen: list[tuple[str, dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            seen.append((parts.path, query))
            status, body = answer(parts.path, query)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()


def gmo_answer(trades: list[Trade], *, doubled: bool = False) -> Any:
    """Answers of GMO Coin's."""
    of_all = rows_of(trades)

    def answer(path: str, query: dict[str, str]) -> tuple[int, Any]:
        assert path == "/public/v1/klines"
        assert query["interval"] == "1min"
        # A date is the day that begins at 06:00 in Japan, 21:00 UTC of the day before.
        begin = int(datetime.strptime(query["date"] + "+0000", "%Y%m%d%z").timestamp()) * 1_000_000 - 3 * 60 * MINUTE
        rows = [row for row in of_all if begin <= row[0] * 1000 < begin + 86_400_000_000]
        names = ("openTime", "open", "high", "low", "close", "volume")
        data = [dict(zip(names, map(str, row[:6]), strict=True)) for row in rows]
        for row in data if doubled else []:
            row["volume"] = str(2 * Decimal(row["volume"]))
        return 200, {"status": 0, "data": data, "responsetime": "2024-08-09T00:00:00.000Z"}

    return answer


def binance_answer(trades: list[Trade], *names: str) -> Any:
    """Answers of `/klines` of Binance in these timeframes; it has nothing else."""
    rows = {name: rows_of(trades, name) for name in names}  # now: a busy machine takes longer than an answer may

    def answer(path: str, query: dict[str, str]) -> tuple[int, Any]:
        if not path.endswith("/klines"):
            return 404, {}
        found = rows[query["interval"]]
        within = [row for row in found if int(query["startTime"]) <= row[0] <= int(query["endTime"])]
        return 200, within[: int(query["limit"])]

    return answer
