"""Key suites: which types of keys a run uses throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from keyark.keys.key_types import KeyType


@dataclass(frozen=True, kw_only=True)
class KeySuite:
    """The key types of a run: users' keys, the CA's and the transport key."""

    name: str
    signing: KeyType
    encryption: KeyType
    ca: KeyType
    transport: KeyType


EC: Final = KeySuite(
    name="ec",
    signing=KeyType.EC_P256,
    encryption=KeyType.EC_P256,
    ca=KeyType.EC_P256,
    transport=KeyType.EC_P256,
)
RSA: Final = KeySuite(
    name="rsa",
    signing=KeyType.RSA_2048,
    encryption=KeyType.RSA_2048,
    ca=KeyType.RSA_2048,
    transport=KeyType.RSA_2048,
)
PQ: Final = KeySuite(
    name="pq",
    signing=KeyType.ML_DSA_65,
    encryption=KeyType.ML_KEM_768,
    ca=KeyType.ML_DSA_65,
    transport=KeyType.EC_P256,
)
SUITES: Final = {suite.name: suite for suite in (EC, RSA, PQ)}
"""The transport envelope has no post-quantum suite: ``pq`` wraps to P-256 as every deployment does by default."""
