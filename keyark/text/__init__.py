"""Text that people read: what may stand in a name, what a name could be mistaken for, and what a terminal is shown."""
