"""The live chart: candles as they come and as they are stored, on a page, with what is known of them and what is not.

Described in docs/chart.md.
"""
