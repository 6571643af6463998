"""Reading records: once, on and on, in a group, or as bytes; and how far a reader is behind."""
