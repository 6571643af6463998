"""One symbol: where it goes on, its order, what of it has been checked and what is missing."""
