"""What keyark knows of a key type: the row of each type in ``keyark.keys.key_types`` is one ``KeyFacts``.

What differs between families of keys in more than a value (how a key is recognised, proven to match, encoded) is a
``match`` over ``Algorithm`` where it belongs, closed by ``assert_never``: mypy names each that lacks a new family.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from keyark.keys import der as _der
from keyark.v1 import common_pb2

RSA_PUBLIC_EXPONENT: Final = 65537

SignatureHash: TypeAlias = hashes.SHA256 | hashes.SHA384 | hashes.SHA512


class Algorithm(enum.Enum):
    """A family of key types; the value is its name in policy."""

    RSA = "rsa"
    EC = "ec"
    ED25519 = "ed25519"
    X25519 = "x25519"
    ML_DSA = "ml-dsa"
    ML_KEM = "ml-kem"


class Fit(enum.Enum):
    """What a key type may be used for."""

    SIGNING = enum.auto()
    """A person's signing certificate, and keyark's own messages."""
    ENCRYPTION = enum.auto()
    """A person's encryption certificate; such keys are archived."""
    ISSUING = enum.auto()
    """A CA's key."""
    TRANSPORT = enum.auto()
    """The DRM's transport key."""
    IDENTITY = enum.auto()
    """The TLS key of a service or a person."""
    PKCS12 = enum.auto()
    """``cryptography`` writes it into PKCS#12 files."""
    SMIME = enum.auto()
    """The S/MIME Baseline Requirements permit it (§7.1.3.1)."""


@dataclass(frozen=True, kw_only=True)
class SignatureScheme:
    """How a key signs: its hash (None where the algorithm has its own) and AlgorithmIdentifier (DER)."""

    hash_algorithm: SignatureHash | None
    algorithm_identifier: bytes


@dataclass(frozen=True, kw_only=True)
class KeyFacts:
    """A key type's row."""

    number: common_pb2.KeyType.ValueType
    """In messages."""
    algorithm: Algorithm
    fit: frozenset[Fit]
    generate: Callable[[], Any]
    public_class: type
    algorithm_identifier: bytes
    """The content of the AlgorithmIdentifier in SPKIs, DER."""
    key_size: int
    """Bytes of what differs between two keys in an SPKI: the modulus, both coordinates, or the whole key."""
    bits: int = 0
    """Of an RSA modulus or an EC field, as policy counts; 0 for all others."""
    curve: ec.EllipticCurve | None = None
    field: int = 0
    """The prime of the curve's field."""
    load_seed: Callable[[bytes], Any] | None = None
    """Makes the private key of an ML-KEM seed."""
    signature: SignatureScheme | None = None
    """How a key signs certificates; ECDSA keys sign keyark's messages with the same hash."""
    usages: tuple[str, ...] = ()
    """What an encryption certificate may have as key usage (RFC 5280 §4.2.1.3); the first is its default.

    S/MIME Baseline Requirements §7.1.2.3 e; RFC 8410 §5; RFC 9935 §5 for ML-KEM.
    """
    match_milliseconds: int = 0
    """What the DRM needs to prove that a private key matches, where that is more than a millisecond."""


def _identifier(oid: str, parameters: bytes = b"") -> bytes:
    return _der.object_identifier(oid) + parameters


def rsa_facts(
    bits: int, *, number: common_pb2.KeyType.ValueType, fit: frozenset[Fit], match_milliseconds: int
) -> KeyFacts:
    """Return the row of RSA keys whose modulus has so many bits."""
    sha256_with_rsa = _identifier("1.2.840.113549.1.1.11", _der.NULL)  # RFC 4055 §5
    return KeyFacts(
        number=number,
        algorithm=Algorithm.RSA,
        fit=fit | {Fit.SIGNING, Fit.ENCRYPTION, Fit.PKCS12, Fit.SMIME},
        generate=partial(rsa.generate_private_key, RSA_PUBLIC_EXPONENT, bits),
        public_class=rsa.RSAPublicKey,
        algorithm_identifier=_identifier("1.2.840.113549.1.1.1", _der.NULL),
        key_size=bits // 8,
        bits=bits,
        signature=SignatureScheme(
            hash_algorithm=hashes.SHA256(), algorithm_identifier=_der.sequence(sha256_with_rsa)
        ),
        usages=("keyEncipherment", "dataEncipherment"),
        match_milliseconds=match_milliseconds,
    )


def ec_facts(
    *,
    number: common_pb2.KeyType.ValueType,
    fit: frozenset[Fit],
    curve: ec.EllipticCurve,
    oid: str,
    field: int,
    signature: tuple[SignatureHash, str],
) -> KeyFacts:
    """Return the row of keys on a NIST curve: its OID, the prime of its field, ECDSA's hash and OID (RFC 5758 §3.2)."""
    hash_algorithm, signature_oid = signature
    return KeyFacts(
        number=number,
        algorithm=Algorithm.EC,
        fit=fit | {Fit.SIGNING, Fit.ENCRYPTION, Fit.PKCS12},
        generate=partial(ec.generate_private_key, curve),
        public_class=ec.EllipticCurvePublicKey,
        algorithm_identifier=_identifier("1.2.840.10045.2.1", _der.object_identifier(oid)),
        key_size=2 * ((curve.key_size + 7) // 8),
        bits=curve.key_size,
        curve=curve,
        field=field,
        signature=SignatureScheme(
            hash_algorithm=hash_algorithm, algorithm_identifier=_der.sequence(_identifier(signature_oid))
        ),
        usages=("keyAgreement", "encipherOnly", "decipherOnly"),
    )


def raw_signing_facts(
    *,
    number: common_pb2.KeyType.ValueType,
    algorithm: Algorithm,
    fit: frozenset[Fit],
    classes: tuple[Any, type],
    oid: str,
    key_size: int,
) -> KeyFacts:
    """Return the row of keys that sign only, without a hash of their own choice; key and signature have one OID."""
    private_class, public_class = classes
    return KeyFacts(
        number=number,
        algorithm=algorithm,
        fit=fit | {Fit.SIGNING},
        generate=private_class.generate,
        public_class=public_class,
        algorithm_identifier=_identifier(oid),
        key_size=key_size,
        signature=SignatureScheme(
            hash_algorithm=None, algorithm_identifier=_der.sequence(_identifier(oid))
        ),  # RFC 8410 §6, RFC 9881 §2
    )


def raw_encryption_facts(
    *,
    number: common_pb2.KeyType.ValueType,
    algorithm: Algorithm,
    fit: frozenset[Fit],
    classes: tuple[Any, type],
    oid: str,
    key_size: int,
    usages: tuple[str, ...],
) -> KeyFacts:
    """Return the row of keys that encrypt only."""
    private_class, public_class = classes
    return KeyFacts(
        number=number,
        algorithm=algorithm,
        fit=fit | {Fit.ENCRYPTION},
        generate=private_class.generate,
        public_class=public_class,
        algorithm_identifier=_identifier(oid),
        key_size=key_size,
        load_seed=getattr(private_class, "from_seed_bytes", None),
        usages=usages,
    )
