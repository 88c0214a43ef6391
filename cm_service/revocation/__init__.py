"""Revocation, suspension and release, and the entries from which lists are made."""
