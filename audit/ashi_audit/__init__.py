"""`ashi verify` and `ashi rebuild`: candles held against their trades, or against the exchange's own."""
