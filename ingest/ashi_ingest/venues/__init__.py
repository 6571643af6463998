"""The venues Ashi understands, a folder for each. Pure: bytes in, trades and requests out, no I/O."""
