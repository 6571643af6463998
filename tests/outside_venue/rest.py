"""The REST interface of each venue, as it documents it, and how it breaks."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any

from aiohttp import web

from .faults import Faults
from .truth import Trade, Truth

Json = Any


def iso(at_us: int, digits: int, trim: bool) -> str:
    """UTC without a zone, with so many digits of the second's fraction, zeros trimmed if told."""
    whole, micro = divmod(at_us, 1_000_000)
    text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{micro:06d}0"[:digits]
    if trim:
        fraction = fraction.rstrip("0")
    return f"{text}.{fraction}" if fraction else text


def bitflyer_row(trade: Trade, live: bool) -> str:
    date = iso(trade.at_us, 7, True) + "Z" if live else iso(trade.at_us, 3, True)
    side = "BUY" if trade.taker_buys else "SELL"
    return (
        f'{{"id":{trade.id},"side":"{side}","price":{trade.price},"size":{trade.size},"exec_date":"{date}",'
        f'"buy_child_order_acceptance_id":"JRF1-{trade.id}","sell_child_order_acceptance_id":"JRF2-{trade.id}"}}'
    )


class Rest:
    """`requests`: when (s), what was asked, and the status of the answer."""

    def __init__(self, truth: Truth, faults: Faults) -> None:
        self.venue = truth.venue
        self.truth = truth
        self.faults = faults
        self.requests: list[tuple[float, str, int]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Of a GET request, in whatever weather; the time that it states is the venue's."""
        answer = await self._broken()
        if answer is None:
            endpoint = request.path.rsplit("/", 1)[-1]
            if self.venue == "bitflyer":
                answer = self._bitflyer(endpoint, request.query)
            elif self.venue == "gmo":
                answer = self._gmo(endpoint, request.query)
            else:
                answer = self._binance(request, endpoint, request.query)
        answer.headers["Date"] = formatdate(self.truth.now(), usegmt=True)
        self.requests.append((time.time(), request.path_qs, answer.status))
        return answer

    async def _broken(self) -> web.StreamResponse | None:
        mode, until = self.faults.rest(), self.faults.rest_until
        if not mode:
            return None
        if mode == "418":
            text = f"Way too much request weight used; IP banned until {int(until * 1000)}. Please use WebSocket."
            headers = {"Retry-After": str(max(1, int(until - time.time())))}
            return web.json_response({"code": -1003, "msg": text}, status=418, headers=headers)
        if mode == "418-body":
            text = f"Way too many requests; IP banned until {int(until * 1000)}."
            return web.json_response({"code": -1003, "msg": text}, status=418)
        if mode.isdigit():
            return web.Response(status=int(mode), text="<html><body>refused</body></html>", content_type="text/html")
        if mode == "hang":
            await asyncio.sleep(max(0.0, until - time.time()))
            return web.Response(status=504)
        if mode == "maintenance":
            if self.venue == "gmo":
                word = {"message_code": "ERR-5201", "message_string": "MAINTENANCE. Please wait for a while"}
                return web.json_response({"status": 5, "messages": [word], "responsetime": self._response_time()})
            if self.venue == "bitflyer":
                return web.json_response({"status": -1, "error_message": "System maintenance", "data": None})
            return web.json_response({"code": -1016, "msg": "This service is no longer available."}, status=503)
        body = {"html": "<html>ok</html>", "null": "null", "shape": '{"result":[]}', "empty": "[]"}[mode]
        if mode == "empty" and self.venue == "gmo":
            body = json.dumps({"status": 0, "data": {"list": []}, "responsetime": self._response_time()})
        return web.Response(text=body, content_type="text/html" if mode == "html" else "application/json")

    def _response_time(self) -> str:
        return iso(int(self.truth.now() * 1e6), 3, False) + "Z"

    def _bitflyer(self, endpoint: str, query: Json) -> web.Response:
        if endpoint == "getmarkets":
            names = [name for name, market in self.truth.markets.items() if market.listed]
            rows = [{"product_code": name, "market_type": "FX" if name.startswith("FX") else "Spot"} for name in names]
            return web.json_response(rows)
        if endpoint == "getexecutions":
            name = query.get("product_code", "BTC_JPY")
            if name not in self.truth.markets or not self.truth.markets[name].listed:
                refusal = {"status": -100, "error_message": "Invalid product", "data": None}
                return web.json_response(refusal, status=400)
            found = self.truth.shown(name, self.faults.lag())
            before, after = int(query.get("before", 0)), int(query.get("after", 0))
            if before:
                older = [one for one in found if one.id < before]
                if older and older[-1].at_us < (self.truth.now() - 31 * 86_400) * 1e6:
                    words = "Execution history is limited to the most recent 31 days."
                    return web.json_response({"status": -156, "error_message": words, "data": None}, status=400)
            found = [one for one in found if (not before or one.id < before) and one.id > after]
            found = found[::-1][: min(500, int(query.get("count", 100)))]
            text = ",".join(bitflyer_row(one, live=False) for one in found)
            return web.Response(text=f"[{text}]", content_type="application/json")
        return web.json_response({"status": -1, "error_message": "Not found"}, status=404)

    def _gmo(self, endpoint: str, query: Json) -> web.Response:
        data: Json
        if endpoint == "symbols":
            data = [
                {
                    "symbol": name,
                    "minOrderSize": "0.00001",
                    "maxOrderSize": "5",
                    "sizeStep": "0.00001",
                    "tickSize": "0.01",
                    "takerFee": "0.0005",
                    "makerFee": "-0.0001",
                }
                for name, market in self.truth.markets.items()
                if market.listed
            ]
        elif endpoint == "status":
            data = {"status": "OPEN"}
        elif endpoint == "trades":
            name = query.get("symbol", "")
            if name not in self.truth.markets or not self.truth.markets[name].listed:
                word = {"message_code": "ERR-5106", "message_string": "Invalid request parameter. symbol"}
                return web.json_response({"status": 5, "messages": [word], "responsetime": self._response_time()})
            page, count = int(query.get("page", 1)), min(100, int(query.get("count", 100)))
            trades = self.truth.shown(name, self.faults.lag())
            rows = []
            for trade in trades[-(page * count) :]:
                taker = "BUY" if trade.taker_buys else "SELL"
                for side in (taker, "SELL" if taker == "BUY" else "BUY"):
                    at = iso(trade.at_us, 3, False) + "Z"
                    rows.append({"price": trade.price, "side": side, "size": trade.size, "timestamp": at})
            rows = rows[::-1][(page - 1) * count : page * count]
            data = {"pagination": {"currentPage": page, "count": count}, "list": rows}
        else:
            return web.json_response({"status": 5, "messages": []}, status=404)
        return web.json_response({"status": 0, "data": data, "responsetime": self._response_time()})

    def _binance(self, request: web.Request, endpoint: str, query: Json) -> web.Response:
        spot = self.venue == "binance"
        if endpoint == "time":
            return web.json_response({"serverTime": int(self.truth.now() * 1000)})
        if endpoint == "ping":
            return web.json_response({})
        if endpoint == "exchangeInfo":
            return web.json_response(self._exchange_info(spot))
        name = query.get("symbol", "")
        if name and (name not in self.truth.markets or not self.truth.markets[name].listed):
            return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)
        lag = self.faults.lag()
        if endpoint == "24hr":
            names = [name] if name else [n for n, m in self.truth.markets.items() if m.listed]
            rows = [self._day(one, lag) for one in names]
            return web.json_response(rows[0] if name else rows)
        if not name:
            return web.json_response({"code": -1102, "msg": "Mandatory parameter 'symbol' was not sent."}, status=400)
        shown = self.truth.shown(name, lag)
        limit = min(1000, int(query.get("limit", 500)))
        if endpoint == "historicalTrades":
            if not spot and "X-MBX-APIKEY" not in request.headers:
                return web.json_response({"code": -2014, "msg": "API-key format invalid."}, status=401)
            since = query.get("fromId")
            shown = shown[-limit:] if since is None else [row for row in shown if row.id >= int(since)][:limit]
        elif endpoint == "trades":
            shown = shown[-limit:]
        else:
            return web.json_response({"code": -1, "msg": "not here"}, status=404)
        rows = [
            {
                "id": row.id,
                "price": row.price,
                "qty": row.size,
                "quoteQty": "0.0",
                "time": row.at_us // 1000,
                "isBuyerMaker": not row.taker_buys,
            }
            | ({"isBestMatch": True} if spot else {})
            for row in shown
        ]
        return web.json_response(rows)

    def _day(self, name: str, lag: float) -> Json:
        shown = self.truth.shown(name, lag)
        first, last = (shown[0].id, shown[-1].id) if shown else (-1, -1)
        now = int(self.truth.now() * 1000)
        return {
            "symbol": name,
            "lastPrice": shown[-1].price if shown else "0",
            "openTime": now - 86_400_000,
            "closeTime": now,
            "firstId": first,
            "lastId": last,
            "count": last - first + 1 if shown else 0,
        }

    def _exchange_info(self, spot: bool) -> Json:
        halted = "BREAK" if spot else "PENDING_TRADING"
        return {
            "timezone": "UTC",
            "serverTime": int(self.truth.now() * 1000),
            "rateLimits": [],
            "symbols": [
                {
                    "symbol": name,
                    "status": halted if market.halted else "TRADING",
                    "baseAsset": name.removesuffix("USDT"),
                    "quoteAsset": "USDT",
                    "filters": [
                        {"filterType": "PRICE_FILTER", "tickSize": "0.01000000"},
                        {"filterType": "LOT_SIZE", "stepSize": "0.00001000"},
                    ],
                }
                | ({} if spot else {"contractType": "PERPETUAL"})
                for name, market in self.truth.markets.items()
                if market.listed
            ],
        }
