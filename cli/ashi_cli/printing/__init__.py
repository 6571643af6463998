"""What is printed of candles: tables, CSV, and a series of a store as either."""
