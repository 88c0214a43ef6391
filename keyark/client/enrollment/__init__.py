"""Enrolling: one user or many, in memory or in a folder, and waiting for an officer."""
