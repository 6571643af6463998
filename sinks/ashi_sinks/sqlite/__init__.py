"""SQLite, the embedded default: one file."""
