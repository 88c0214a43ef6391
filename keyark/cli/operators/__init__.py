"""Commands of those who run a deployment."""
