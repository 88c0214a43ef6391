"""What is measured: latencies, CPU and memory, right answers, and the crypto floor."""
