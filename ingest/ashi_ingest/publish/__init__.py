"""From trades to topic `trades`: batches by partition, and a buffer before them for feeds, which must never wait."""
