"""Guards the command line."""
