"""What a load test is to do: the plan, its suites and keys, and what each client process is told."""
