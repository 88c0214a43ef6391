"""Cosignatures (c2sp.org/tlog-cosignature, Ed25519, cosignature/v1): RM and CM as witnesses of the DRM's log.

A cosignature says that the tree is the largest one that the witness accepted at that time, and that it leads on from
all that it accepted before. It is one more line of the log's signed note::

    cosigned = cosigner.cosign(note, at=now)
    verifier.verify(cosigned)

The key is the witness's log key. What it signs as a log begins with the log's origin, a cosignature with
``cosignature/v1``; the signature type, 0x04 against 0x01, tells their lines apart.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keyark.transparency._text import encode_base64
from keyark.transparency.checkpoint import (
    KEY_ID_SIZE,
    CheckpointKeyError,
    CheckpointSignatureError,
    LogKey,
    note_text,
    signatures_of,
)

_COSIGNATURE: Final = b"\x04"
_TIME_SIZE: Final = 8
_SIGNATURE_SIZE: Final = 64
_MAX_TIME: Final = 2**63 - 1


class Cosigner:
    """Cosigns the checkpoints of a log that somebody else keeps."""

    def __init__(self, name: str, key: LogKey) -> None:
        """Take the witness's name ("example.org/rm") and Ed25519 key; raises CheckpointKeyError for another."""
        self.name = name
        self._key = key
        self._key_id = _key_id(name, _ed25519(key.public_key()))

    def cosign(self, note: bytes, *, at: int) -> bytes:
        """Return a signed note with this witness's line added; ``at`` is in seconds UTC.

        Call it for the newest note that was accepted and is durable, and for nothing else.
        """
        signature = self._key.sign(_message(note_text(note), at))
        line = encode_base64(self._key_id + at.to_bytes(_TIME_SIZE, "big") + signature)
        return note + b"\xe2\x80\x94 %s %s\n" % (self.name.encode(), line)


class CosignatureVerifier:
    """Verifies the cosignatures of one witness."""

    def __init__(self, name: str, public_key: object) -> None:
        """Take the witness's name and Ed25519 key; raises CheckpointKeyError for another."""
        self.name = name
        self._key = _ed25519(public_key)
        self._key_id = _key_id(name, self._key)

    def verify(self, note: bytes) -> int:
        """Return when the witness cosigned a note (seconds UTC); the log's own signature is not looked at.

        Raises CheckpointFormatError, and CheckpointSignatureError where the witness did not cosign it.
        """
        text = note_text(note)
        found = [
            signature[KEY_ID_SIZE:]
            for name, signature in signatures_of(note)
            if name == self.name and signature.startswith(self._key_id)
        ]
        if not found:
            raise CheckpointSignatureError(f"The checkpoint is not cosigned by {self.name}.")
        return max(self._check(signature, text) for signature in found)

    def _check(self, timestamped: bytes, text: bytes) -> int:
        at, signature = int.from_bytes(timestamped[:_TIME_SIZE], "big"), timestamped[_TIME_SIZE:]
        try:
            if len(signature) != _SIGNATURE_SIZE or at > _MAX_TIME:
                raise InvalidSignature
            self._key.verify(signature, _message(text, at))
        except InvalidSignature:
            raise CheckpointSignatureError(f"The cosignature of {self.name} does not verify.") from None
        return at


def _message(text: bytes, at: int) -> bytes:
    return b"cosignature/v1\ntime %d\n%s" % (at, text)


def _key_id(name: str, key: Ed25519PublicKey) -> bytes:
    source = name.encode() + b"\n" + _COSIGNATURE + key.public_bytes_raw()
    return sha256(source).digest()[:KEY_ID_SIZE]


def _ed25519(key: object) -> Ed25519PublicKey:
    if not isinstance(key, Ed25519PublicKey):
        raise CheckpointKeyError("Witnesses cosign with Ed25519; use such a log key.")
    return key
