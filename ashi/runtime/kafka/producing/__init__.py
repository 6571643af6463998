"""Writing records: in batches, in transactions, and those that could not be read as dead letters."""
