"""Who has access: the internal CA, what it issued and revoked, and the bundle for homes."""
