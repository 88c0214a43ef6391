"""How CA keys sign certificates: the hash that fits each key type, and its AlgorithmIdentifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from keyark.errors import ConfigurationError
from keyark.keys import der as _der
from keyark.keys.key_types import CA_KEY_TYPES, KeyType, SigningPrivateKey, check_key_type, key_type_of
from keyark.keys.spki import encode_spki

CertificateHash: TypeAlias = hashes.SHA256 | hashes.SHA384


class IssuerKeyMismatchError(ConfigurationError):
    """The private key is not the one of the issuing certificate, or the certificate is no CA's."""

    reason = "ISSUER_KEY_MISMATCH"


@dataclass(frozen=True, kw_only=True)
class SignatureScheme:
    """How a CA key signs: its hash (None where the algorithm has its own) and AlgorithmIdentifier (DER)."""

    hash_algorithm: CertificateHash | None
    algorithm_identifier: bytes


def _scheme(oid: str, hash_algorithm: CertificateHash | None, parameters: bytes = b"") -> SignatureScheme:
    identifier = _der.sequence(_der.object_identifier(oid), parameters)
    return SignatureScheme(hash_algorithm=hash_algorithm, algorithm_identifier=identifier)


_RSA_SHA256: Final = _scheme("1.2.840.113549.1.1.11", hashes.SHA256(), _der.NULL)  # RFC 4055 §5
_SCHEMES: Final = {
    KeyType.EC_P256: _scheme("1.2.840.10045.4.3.2", hashes.SHA256()),  # RFC 5758 §3.2
    KeyType.EC_P384: _scheme("1.2.840.10045.4.3.3", hashes.SHA384()),
    KeyType.RSA_3072: _RSA_SHA256,
    KeyType.RSA_4096: _RSA_SHA256,
    KeyType.ED25519: _scheme("1.3.101.112", None),  # RFC 8410 §6
    KeyType.ML_DSA_65: _scheme("2.16.840.1.101.3.4.3.18", None),  # RFC 9881 §2
}


def signature_scheme(private_key: SigningPrivateKey) -> SignatureScheme:
    """Return how this CA key signs; raises UnsupportedKeyError unless its type is one of CA_KEY_TYPES."""
    key_type = key_type_of(private_key.public_key())
    check_key_type(key_type, CA_KEY_TYPES)
    return _SCHEMES[key_type]


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
            "The certificate is no CA's; use the issuing CA's certificate."
        ) from None
    if not (basic.ca and usage.key_cert_sign):
        raise IssuerKeyMismatchError("The certificate may not issue; use the issuing CA's certificate.")
