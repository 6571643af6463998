"""Recordings of what venues sent: their format, recording them beside a live feed, replaying them."""
