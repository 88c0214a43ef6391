"""PKCS#12 files (RFC 7292), with which users take a key and its certificate into their mail program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import PrivateFormat, pkcs12

from keyark.errors import InvalidInputError
from keyark.pki.key_types import PrivateKey, UnsupportedKeyError, key_type_of
from keyark.pki.spki import encode_spki

PBKDF2_ITERATIONS: Final = 600_000


def build_pkcs12(
    *,
    name: str,
    private_key: PrivateKey,
    certificate: x509.Certificate,
    chain: Sequence[x509.Certificate],
    password: bytes,
) -> bytes:
    """Return a PKCS#12 file (DER): AES-256-CBC under PBKDF2 with HMAC-SHA-256, MAC with SHA-256.

    Raises UnsupportedKeyError for types other than RSA, EC and Ed25519, which PKCS#12 is not written for, and
    InvalidInputError where the certificate is not the key's or the password is empty.
    """
    key_type = key_type_of(private_key.public_key())
    if not isinstance(
        private_key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    ):
        raise UnsupportedKeyError(
            f"PKCS#12 files are not written for {key_type.value} keys; save the key as encrypted PEM instead."
        )
    if encode_spki(certificate.public_key()) != encode_spki(private_key.public_key()):
        raise InvalidInputError("The certificate is not the one of this private key.", field="certificate")
    if not password:
        raise InvalidInputError("A PKCS#12 file needs a password; give one.", field="password")
    encryption = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(PBKDF2_ITERATIONS)
        .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA256())
        .build(password)
    )
    return pkcs12.serialize_key_and_certificates(name.encode(), private_key, certificate, chain, encryption)


def open_pkcs12(data: bytes, *, password: bytes) -> PrivateKey:
    """Return the private key of a PKCS#12 file; raises InvalidInputError for a wrong password or what is none."""
    try:
        key, _, _ = pkcs12.load_key_and_certificates(data, password)
    except ValueError:
        raise InvalidInputError(
            "The PKCS#12 file does not open with this password; give the right one.", field="password"
        ) from None
    if key is None:
        raise InvalidInputError("The PKCS#12 file holds no private key.", field="format")
    key_type_of(key.public_key())
    return cast("PrivateKey", key)
