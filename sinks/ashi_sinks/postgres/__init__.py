"""PostgreSQL, a plain table or a hypertable of TimescaleDB."""
