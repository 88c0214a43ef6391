"""How keys sign keyark's own messages: one scheme for each key type, so that no message has to name one.

RSA: PSS with SHA-256 and a salt of 32 bytes. ECDSA: SHA-256, SHA-384 or SHA-512 for P-256, P-384 and P-521,
the signature in DER. Ed25519 and ML-DSA: pure, with an empty context. What is signed must carry a label of
its own (keyark.contexts), since one key may sign several kinds of messages.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from keyark.keys.key_types import SigningPrivateKey, SigningPublicKey

_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
_SHA256: Final = hashes.SHA256()
_ECDSA: Final = {
    "secp256r1": ec.ECDSA(hashes.SHA256()),
    "secp384r1": ec.ECDSA(hashes.SHA384()),
    "secp521r1": ec.ECDSA(hashes.SHA512()),
}


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
