"""A strategy at work: candles as they close in, signals out, through whatever fails (`ashi strategy run`)."""
