"""Strategies: series of candles in, signals out, by one engine for live and for backtests."""
