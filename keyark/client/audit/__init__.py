"""Reading the logs, following their heads, and `keyark doctor`, which holds all that is told against each other."""
