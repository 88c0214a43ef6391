"""What runs a service: its commands, its start and its end, and what it does while it does not run."""
