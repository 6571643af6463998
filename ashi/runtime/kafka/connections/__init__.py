"""Clients of Kafka, made in one place: their guarantees, names, errors, and what becomes of a connection."""
