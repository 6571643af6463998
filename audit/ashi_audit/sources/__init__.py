"""Where the trades come from that candles are compared with: topic `trades`, a lake, recordings."""
