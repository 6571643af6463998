"""Venues written from their own documentation alone, by somebody who has not read Ashi's source of them."""
