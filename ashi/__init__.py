"""Ashi: exchange trades into candles over Apache Kafka. What all stages share lives here."""

__version__ = "0.2.0"
