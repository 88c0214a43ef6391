"""Access to a deployment: home, identity, password, channels, and the transport keys that a home knows."""
