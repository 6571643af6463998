"""The native fold: fetched bytes into partial folds without Python's lock, or by Python what it may not decide."""
