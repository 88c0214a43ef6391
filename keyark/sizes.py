"""Sizes in bytes of what several parts know by their size."""

from __future__ import annotations

from typing import Final

HASH_SIZE: Final = 32
"""SHA-256: hashes of leaves and statements, and the ids of keys, which are the hash of their SPKI."""
ENROLLMENT_ID_SIZE: Final = 32
"""An enrollment's id: the request id, then the first half of the hash of its caller."""
UUID_SIZE: Final = 16
"""A UUIDv7 (RFC 9562 §5.7): the id of a request or of a ceremony."""
