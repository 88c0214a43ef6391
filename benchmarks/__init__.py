"""The fixed suite of `make bench` and `make bench-scale`; not part of the distribution, for it looks into services."""
