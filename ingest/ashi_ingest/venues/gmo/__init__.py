"""GMO Coin."""
