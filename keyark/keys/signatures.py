"""How keys sign keyark's own messages and certificates: one scheme for each key type, so that nothing has to name one.

Messages. RSA: PSS with SHA-256 and a salt of 32 bytes. ECDSA: SHA-256, SHA-384 or SHA-512 for P-256, P-384 and P-521,
the signature in DER. Ed25519 and ML-DSA: pure, with an empty context. What is signed must carry a label of
its own (keyark.contexts), since one key may sign several kinds of messages.

Certificates and CRLs: the hash of the key type's row and its AlgorithmIdentifier; RSA as PKCS #1 v1.5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from keyark.errors import ConfigurationError
from keyark.keys.key_facts import SignatureScheme
from keyark.keys.key_types import (
    CA_KEY_TYPES,
    EC_KEY_TYPES,
    SigningPrivateKey,
    SigningPublicKey,
    check_key_type,
    key_type_of,
)
from keyark.keys.spki import encode_spki

_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
_SHA256: Final = hashes.SHA256()
_ECDSA: Final = {
    t.facts.curve.name: ec.ECDSA(t.facts.signature.hash_algorithm)
    for t in EC_KEY_TYPES
    if t.facts.curve and t.facts.signature and t.facts.signature.hash_algorithm
}


class IssuerKeyMismatchError(ConfigurationError):
    """The private key is not the one of the issuing certificate, or the certificate is no CA's."""

    reason = "ISSUER_KEY_MISMATCH"


def sign_message(private_key: SigningPrivateKey, message: bytes) -> bytes:
    """Sign a labelled message; the key's type decides the scheme."""
    if isinstance(private_key, ec.EllipticCurvePrivateKey):
        return private_key.sign(message, _ECDSA[private_key.curve.name])
    if isinstance(private_key, rsa.RSAPrivateKey):
        return private_key.sign(message, _PSS, _SHA256)
    return private_key.sign(message)


def verify_message(public_key: SigningPublicKey, signature: bytes, message: bytes) -> None:
    """Verify a labelled message; raises cryptography.exceptions.InvalidSignature."""
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        public_key.verify(signature, message, _ECDSA[public_key.curve.name])
    elif isinstance(public_key, rsa.RSAPublicKey):
        public_key.verify(signature, message, _PSS, _SHA256)
    else:
        public_key.verify(signature, message)


def signature_scheme(private_key: SigningPrivateKey) -> SignatureScheme:
    """Return how this CA key signs; raises UnsupportedKeyError unless its type is one of CA_KEY_TYPES."""
    key_type = key_type_of(private_key.public_key())
    check_key_type(key_type, CA_KEY_TYPES)
    scheme = key_type.facts.signature
    if scheme is None:
        raise TypeError(f"the row of {key_type.value} lacks how it signs certificates")
    return scheme


def tbs_signer(private_key: SigningPrivateKey) -> Callable[[bytes], bytes]:
    """Return the function that signs a TBSCertificate (DER) with this CA key, its parameters made once."""
    scheme = signature_scheme(private_key)
    if isinstance(private_key, ec.EllipticCurvePrivateKey) and scheme.hash_algorithm:
        ec_key, ecdsa = private_key, ec.ECDSA(scheme.hash_algorithm)
        return lambda tbs: ec_key.sign(tbs, ecdsa)
    if isinstance(private_key, rsa.RSAPrivateKey) and scheme.hash_algorithm:
        rsa_key, pkcs1, digest = private_key, padding.PKCS1v15(), scheme.hash_algorithm
        return lambda tbs: rsa_key.sign(tbs, pkcs1, digest)
    if isinstance(private_key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise TypeError("an EC or RSA signature needs a hash")
    return private_key.sign


def check_crl_issuer(certificate: x509.Certificate, private_key: SigningPrivateKey) -> None:
    """Raise IssuerKeyMismatchError unless this is the certificate of this private key and may sign CRLs."""
    check_issuer(certificate, private_key)
    if not certificate.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign:
        raise IssuerKeyMismatchError(
            "The CA certificate may not sign CRLs; have it issued with the key usage cRLSign."
        )


def check_issuer(certificate: x509.Certificate, private_key: SigningPrivateKey) -> None:
    """Raise IssuerKeyMismatchError unless this is the CA certificate of this private key."""
    if encode_spki(certificate.public_key()) != encode_spki(private_key.public_key()):
        raise IssuerKeyMismatchError(
            "The private key is not the one of the CA certificate; check both files."
        )
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        raise IssuerKeyMismatchError(
            "The certificate is not that of a CA; use the issuing CA's certificate."
        ) from None
    if not (basic.ca and usage.key_cert_sign):
        raise IssuerKeyMismatchError("The certificate may not issue; use the issuing CA's certificate.")
