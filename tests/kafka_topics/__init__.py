"""Topics as tests have them: of a real Kafka, made anew or grown, and logs in memory that crash."""
