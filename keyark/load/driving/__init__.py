"""Client processes and their calls: when they begin, what they do, and what the machine did meanwhile."""
