"""How a service runs: its commands, start and end, and the commands that work while it is stopped."""
