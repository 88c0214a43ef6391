"""Transport envelopes: a private key on its way to the archive, bound to one statement.

Two suites, each for a type of transport key: HPKE base mode over P-256 (RFC 9180), and RSAES-OAEP (RFC 8017
§7.1) with AES-256-GCM. The context names transport key and statement; for anything else an envelope does not
open.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keyark.canonical import NotCanonicalError, canonical, read_canonical
from keyark.contexts import context
from keyark.errors import InvalidInputError, KeyarkError, Kind
from keyark.keys.key_types import TRANSPORT_KEY_TYPES, PrivateKey, check_key_type, key_type_of
from keyark.keys.pkcs8 import MAX_PRIVATE_KEY_SIZE
from keyark.keys.spki import key_id, load_spki, public_key_id
from keyark.sizes import HASH_SIZE
from keyark.v1.statement_pb2 import EnvelopeSuite, TransportEnvelope

ENVELOPE_LABEL: Final = "keyark/v1/transport-envelope"
MAX_ENVELOPE_SIZE: Final = 32 * 1024

_HPKE: Final = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_OAEP: Final = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
_SECRET_SIZE: Final = 32
_NONCE_SIZE: Final = 12

_Open = Callable[[bytes, bytes], bytes]  # ciphertext, info


class EnvelopeError(KeyarkError):
    """The envelope does not open; which check failed is not told, so that opening is no oracle."""

    reason = "ENVELOPE"
    kind = Kind.INVALID
    is_final = True


class UnknownTransportKeyError(KeyarkError):
    """The envelope is for a transport key that is not, or no longer, here."""

    reason = "UNKNOWN_TRANSPORT_KEY"
    kind = Kind.PRECONDITION


@dataclass(frozen=True)
class TransportPublicKey:
    """The public half of a transport key pair, P-256 or RSA-3072; ``key_id`` is SHA-256 of its SPKI."""

    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    key_id: bytes

    @classmethod
    def from_spki(cls, spki: bytes) -> TransportPublicKey:
        """Load a canonical SPKI (DER); raises UnsupportedKeyError and SpkiNotCanonicalError."""
        return cls(_narrow_public(load_spki(spki, field="transport_key")), key_id(spki))


def seal_to_transport(
    private_key: bytes, *, transport_public_key: TransportPublicKey, statement_sha256: bytes
) -> bytes:
    """Wrap a private key (PKCS#8 DER, at most 16 KiB) for one statement.

    Returns a serialized TransportEnvelope. Raises InvalidInputError for a private key that is too large.
    """
    if len(private_key) > MAX_PRIVATE_KEY_SIZE:
        raise InvalidInputError(
            f"The private key has more than {MAX_PRIVATE_KEY_SIZE} bytes; give one key and nothing else.",
            field="private_key",
        )
    key, info = transport_public_key.public_key, _info(transport_public_key.key_id, statement_sha256)
    if isinstance(key, rsa.RSAPublicKey):
        ciphertext = _seal_rsa(key, private_key, info)
    else:
        ciphertext = _HPKE.encrypt(private_key, key, info)
    envelope = TransportEnvelope(
        suite=_suite_for(key), transport_key_id=transport_public_key.key_id, ciphertext=ciphertext
    )
    return canonical(envelope)


class TransportKey:
    """The private half of a transport key pair, which opens envelopes; ``repr`` shows its id only."""

    def __init__(self, private_key: PrivateKey) -> None:
        """Take a P-256 or an RSA-3072 key; raises UnsupportedKeyError for another."""
        public_key = _narrow_public(private_key.public_key())
        self.key_id = public_key_id(public_key)
        self._suite = _suite_for(public_key)
        self._open = _opener(private_key)

    def open(self, envelope: bytes, statement_sha256: bytes) -> bytes:
        """Return what a serialized envelope holds for this statement: a private key (DER), not yet checked.

        Raises UnknownTransportKeyError where it names another transport key, for key ids are public, and
        EnvelopeError, always with the same message, for every other failure.
        """
        message = _parse(envelope)
        if message.transport_key_id != self.key_id:
            raise _unknown(message.transport_key_id)
        if message.suite != self._suite:
            raise _unopened()
        try:
            private_key = self._open(message.ciphertext, _info(self.key_id, statement_sha256))
        except (InvalidTag, ValueError):
            raise _unopened() from None
        if len(private_key) > MAX_PRIVATE_KEY_SIZE:
            raise _unopened()
        return private_key

    def __repr__(self) -> str:
        return f"TransportKey({self.key_id.hex()})"


class EnvelopeKeys:
    """The transport keys whose envelopes are taken: the newest, and older ones until they are retired."""

    def __init__(self, private_keys: Iterable[PrivateKey]) -> None:
        """Take P-256 and RSA-3072 keys; raises UnsupportedKeyError for another."""
        self._keys = {key.key_id: key for key in map(TransportKey, private_keys)}

    def open(self, envelope: bytes, statement_sha256: bytes) -> bytes:
        """Return what a serialized envelope holds, opened with the key that it names; see ``TransportKey.open``."""
        key_id = _parse(envelope).transport_key_id
        key = self._keys.get(key_id)
        if key is None:
            raise _unknown(key_id)
        return key.open(envelope, statement_sha256)


def _info(key_id: bytes, statement_sha256: bytes) -> bytes:
    return context(ENVELOPE_LABEL, key_id, statement_sha256)


def _parse(envelope: bytes) -> TransportEnvelope:
    """Read the one encoding of the three known fields; a field that is not known could matter."""
    try:
        message = read_canonical(TransportEnvelope, envelope, max_size=MAX_ENVELOPE_SIZE)
    except NotCanonicalError:
        raise _unopened() from None
    if len(message.transport_key_id) != HASH_SIZE:
        raise _unopened()
    return message


def _unknown(key_id: bytes) -> UnknownTransportKeyError:
    return UnknownTransportKeyError(
        "The envelope is for another transport key; fetch the enrollment form again, and wrap the key again.",
        metadata={"transport_key_id": key_id.hex()},
    )


def _unopened() -> EnvelopeError:
    return EnvelopeError(
        "The envelope does not open for this statement and transport key; wrap the private key again."
    )


def _narrow_public(key: PublicKeyTypes) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    check_key_type(key_type_of(key), TRANSPORT_KEY_TYPES, field="transport_key")
    return cast("ec.EllipticCurvePublicKey | rsa.RSAPublicKey", key)


def _suite_for(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> EnvelopeSuite.ValueType:
    if isinstance(key, rsa.RSAPublicKey):
        return EnvelopeSuite.ENVELOPE_SUITE_RSA_OAEP_SHA256_AES256GCM
    return EnvelopeSuite.ENVELOPE_SUITE_HPKE_P256_SHA256_AES256GCM


def _opener(key: PrivateKey) -> _Open:
    if isinstance(key, rsa.RSAPrivateKey):
        return partial(_open_rsa, key)
    return partial(_open_hpke, cast("ec.EllipticCurvePrivateKey", key))


def _open_hpke(key: ec.EllipticCurvePrivateKey, ciphertext: bytes, info: bytes) -> bytes:
    return _HPKE.decrypt(ciphertext, key, info)


def _derive(secret: bytes, info: bytes) -> AESGCM:
    return AESGCM(HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(secret))


def _seal_rsa(key: rsa.RSAPublicKey, private_key: bytes, info: bytes) -> bytes:
    secret, nonce = os.urandom(_SECRET_SIZE), os.urandom(_NONCE_SIZE)
    return key.encrypt(secret, _OAEP) + nonce + _derive(secret, info).encrypt(nonce, private_key, info)


def _open_rsa(key: rsa.RSAPrivateKey, ciphertext: bytes, info: bytes) -> bytes:
    nonce_start = key.key_size // 8
    sealed_start = nonce_start + _NONCE_SIZE
    secret = key.decrypt(ciphertext[:nonce_start], _OAEP)
    if len(secret) != _SECRET_SIZE:
        raise ValueError
    return _derive(secret, info).decrypt(
        ciphertext[nonce_start:sealed_start], ciphertext[sealed_start:], info
    )
