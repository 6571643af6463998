"""Where the executions of a simulated market come from: made up, or recorded."""
