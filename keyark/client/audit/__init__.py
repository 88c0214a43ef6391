"""Reading the logs, following their heads, and `keyark doctor`, which compares what the services say."""
