"""The archived keys and what they are sealed under: search, storage key generations, and keys that did not open."""
