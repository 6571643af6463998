"""`ashi doctor`: whether a deployment is set up as it must be, each check with what to run where it is not."""
