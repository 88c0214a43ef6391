"""The `keyark` command; it has no logic of its own, each command calls the SDK or the deployment."""
