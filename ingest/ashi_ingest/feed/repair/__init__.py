"""Fetching over REST what connections have not brought, and finding out by comparison that there is something."""
