"""Candles of trades that are older than all that the live state has: from files, put before its left edge."""
