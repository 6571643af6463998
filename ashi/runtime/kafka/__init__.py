"""Kafka, in a room for each thing that is done with it. Only here is the client library known."""
