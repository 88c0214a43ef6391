"""Identities: SPIFFE IDs, their certificates, files and revocation; and trust in transport certificates."""
