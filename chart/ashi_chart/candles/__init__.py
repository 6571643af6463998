"""Candles as a chart has them: longer timeframes rolled up of shorter ones, the newest as they come, and their bars."""
