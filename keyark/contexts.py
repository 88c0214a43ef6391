"""Contexts: what a ciphertext, signature or commitment is bound to."""

from __future__ import annotations


def context(label: str, *parts: bytes) -> bytes:
    """Join a label (UTF-8) and parts, each after its length as 4 bytes, big-endian.

    No two lists of parts give the same bytes, and labels keep uses apart.
    """
    pieces = [label.encode(), *parts]
    return b"".join(piece for part in pieces for piece in (len(part).to_bytes(4, "big"), part))
