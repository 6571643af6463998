"""All markets at once: the last day of each, how its feed is, the newest signal."""
