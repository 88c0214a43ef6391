"""Coalescing of calls in flight, and the pool of worker processes that hold keys."""
