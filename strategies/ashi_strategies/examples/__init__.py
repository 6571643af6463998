"""Strategies to begin from. They are examples of how one is written, not of how money is made."""
