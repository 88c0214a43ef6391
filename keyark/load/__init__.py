"""The load-testing harness: how much a deployment takes, and how far that is from the unavoidable cryptography."""
