"""The REST interfaces of venues: one client, which keeps to the budget of the venue."""
