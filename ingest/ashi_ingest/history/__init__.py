"""The past on command: a stretch of time of a symbol, fetched over REST."""
