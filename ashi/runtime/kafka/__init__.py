"""Kafka: clients, records, topics, offsets, groups, dead letters. Only here is the client library known."""
