"""Commands of operators: deployment, authority, ca, identities, transport_key, key_password, policy, load."""
