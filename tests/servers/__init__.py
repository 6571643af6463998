"""Servers and processes that tests start: Kafka, PostgreSQL, venues, stages of the flow; and their ports."""
