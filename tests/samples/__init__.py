"""Trades, candles and files that are made up, as tests and benchmarks hand them in, and how stored ones are read."""
