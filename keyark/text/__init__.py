"""Text that people read: characters that a name may have, names that look alike, and what a terminal is shown."""
