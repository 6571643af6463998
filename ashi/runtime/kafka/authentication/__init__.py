"""Being let in by Kafka: a password or a token, TLS by files that are replaced, and why it was refused."""
