"""Websocket connections to venues: one policy by which those of every venue live."""
