"""Composes deployments out of the services' own commands: `keyark init`, `keyark up`."""
