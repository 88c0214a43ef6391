"""Commands of recovery agents: recover, keys, agents, ceremonies."""
