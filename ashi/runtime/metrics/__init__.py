"""Every metric of Ashi, by the stage that serves it."""
