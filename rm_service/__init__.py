"""The Registration Manager: the only subsystem that clients talk to for enrollment."""
