"""What is measured: latencies, CPU and memory, correct answers, and the crypto floor."""
