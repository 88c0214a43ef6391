"""Identities in configuration, which names them without the trust domain."""

from __future__ import annotations

from keyark.errors import KeyarkError
from keyark.identity.spiffe import SpiffeId


def check_identity(path: str, *, role: str) -> str:
    """Return an identity's path ("agent/alice") if it has the role, for validators."""
    try:
        identity = SpiffeId("example.org", path)
    except KeyarkError as error:
        raise ValueError(error.message) from None
    if identity.role != role:
        raise ValueError(f"only identities of the form {role}/NAME are allowed here")
    return path
