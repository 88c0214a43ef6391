"""What a load test reports: while it runs, as JSON, in a terminal, and as a page."""
