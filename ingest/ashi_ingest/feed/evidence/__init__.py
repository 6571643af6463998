"""What tells whether anything is missing: what venues state, the rhythm of markets, clocks, how far all is known."""
