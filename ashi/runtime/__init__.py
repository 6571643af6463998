"""What every worker process needs: settings, logs, Kafka clients, metrics and health, an orderly end."""
