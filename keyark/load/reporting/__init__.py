"""What a load test tells: while it runs, as JSON, in a terminal, and as a page."""
