"""The `keyark` command. It has no logic of its own: each command calls the SDK or ``keyark.deployment``."""
