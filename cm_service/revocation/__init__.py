"""Revocation, hold and release, and the entries that lists are made from."""
