"""The pure core of the aggregate stage: no I/O, no clock of its own, no client library."""
