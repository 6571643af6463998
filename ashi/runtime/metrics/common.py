"""The metrics that every worker has."""

from __future__ import annotations

from ashi.runtime.metrics.declare import counter, gauge

dead_letters = counter("all", "dead_letters", "Messages that could not be used, by class of reason.", "stage", "reason")
build_info = gauge("all", "build_info", "1, with the version of Ashi that this process runs.", "stage", "version")
kafka_up = gauge(
    "all",
    "kafka_up",
    "1 while Kafka answers this process, else 0: at its start, and asked every two seconds from then on.",
    "stage",
)
rebalances = counter(
    "all", "rebalances", "Times that the stage's consumer group has given out its partitions anew.", "stage"
)
topic_retention_seconds = gauge(
    "all",
    "topic_retention_seconds",
    "How long Kafka keeps the records of a topic that this process reads (retention.ms, as of its start); +Inf where "
    "it keeps them for ever.",
    "topic",
)
certificate_expiry_timestamp_seconds = gauge(
    "all",
    "certificate_expiry_timestamp_seconds",
    "Until when a certificate of the connections to Kafka is good, since the epoch, by kind: broker (the first of "
    "those that this process has connected to), authority (of ASHI_KAFKA_CA_FILE) or client (of ASHI_KAFKA_CERT_FILE).",
    "kind",
)
certificate_files_behind = gauge(
    "all",
    "certificate_files_behind",
    "1 while ASHI_KAFKA_CA_FILE, ASHI_KAFKA_CERT_FILE or ASHI_KAFKA_KEY_FILE was replaced by what cannot be read, so "
    "that new connections are made with what was read before; else 0.",
)
