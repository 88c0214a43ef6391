"""Archived keys and storage keys: search, storage key generations, and keys that did not open."""
