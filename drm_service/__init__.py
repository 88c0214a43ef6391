"""The Data Recovery Manager: the archive of encryption keys."""
