"""Deployments, composed from the services' own commands: `keyark init`, `keyark up`."""
