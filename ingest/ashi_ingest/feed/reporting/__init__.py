"""What is said of feeds in `feed.status` and `feed.gaps`: by this worker, by others of the same symbols, and before."""
