"""bitFlyer Lightning."""
