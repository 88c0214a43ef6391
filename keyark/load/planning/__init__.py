"""What a load test does: the plan, its suites and keys, and the instructions for each client process."""
