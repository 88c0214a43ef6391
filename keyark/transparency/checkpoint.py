"""Checkpoints: tree heads as C2SP signed notes (c2sp.org/tlog-checkpoint, c2sp.org/signed-note).

A checkpoint of keyark is exactly three lines of text (origin, tree size, root in base64) and its signatures::

    verifier = NoteVerifier.from_public_key("example.org/drm", transport_spki)
    checkpoint = verifier.verify(note)

Three signature types exist: Ed25519 (0x01), ECDSA P-256 with SHA-256, DER (0x02), and RSA-PSS with SHA-256
and a salt of 32 bytes (0xff followed by ``keyark/rsa-pss-sha256/v1``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from keyark.errors import KeyarkError, Kind
from keyark.keys.library import PARSING_ERRORS
from keyark.sizes import HASH_SIZE
from keyark.transparency._text import decode_base64, encode_base64, parse_decimal
from keyark.transparency.merkle import verify_consistency

MAX_NOTE_SIZE: Final = 128 * 1024
"""Bytes; room for the 16 signatures that verifiers must accept, post-quantum ones included."""
MAX_SIGNATURES: Final = 16
KEY_ID_SIZE: Final = 4
MIN_RSA_BITS: Final = 2048

_ED25519: Final = b"\x01"
_RSA_PSS: Final = b"\xffkeyark/rsa-pss-sha256/v1"
_PSS: Final = padding.PSS(mgf=padding.MGF1(SHA256()), salt_length=32)
_CONTROLS: Final = re.compile(rb"[\x00-\x09\x0b-\x1f]")
_SIGNATURE_LINE: Final = re.compile(r"— (?P<name>[^\s+]+) (?P<signature>[A-Za-z0-9+/=]+)")
_ORIGIN: Final = re.compile(r"[^\s+]+")

NotePublicKey: TypeAlias = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey


class CheckpointError(KeyarkError):
    """The checkpoint is not one of the log that is asked about."""

    reason = "CHECKPOINT_INVALID"
    kind = Kind.INVALID


class CheckpointFormatError(CheckpointError):
    """The bytes are no signed note, or its text is not that of a checkpoint."""

    reason = "CHECKPOINT_FORMAT"


class CheckpointOriginError(CheckpointError):
    """The checkpoint is that of another log."""

    reason = "CHECKPOINT_ORIGIN"


class CheckpointSignatureError(CheckpointError):
    """The note carries no signature of the key, or one that does not verify."""

    reason = "CHECKPOINT_SIGNATURE"


class CheckpointKeyError(CheckpointError):
    """The key is of no type that signs checkpoints, or its SubjectPublicKeyInfo is not canonical."""

    reason = "CHECKPOINT_KEY"


@dataclass(frozen=True)
class Checkpoint:
    """A tree head: the log's origin, the number of leaves, and the root hash (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def text(self) -> bytes:
        """Return the text of the note, with its final newline: what is signed."""
        return b"%s\n%d\n%s\n" % (self.origin.encode(), self.size, encode_base64(self.root))

    def check_extends(self, earlier: Checkpoint, proof: Sequence[bytes]) -> None:
        """Raise ConsistencyProofError unless a proof shows that the earlier tree is a prefix of this one."""
        verify_consistency(
            first_size=earlier.size,
            second_size=self.size,
            first_root=earlier.root,
            second_root=self.root,
            proof=proof,
        )


@dataclass(frozen=True)
class VerifiedHead:
    """A checkpoint whose signature was verified, and the signed note (UTF-8) that it came in."""

    checkpoint: Checkpoint
    note: bytes


class LogKey(Protocol):
    """The private key of a log: in memory, or in an HSM that stands in."""

    @property
    def is_slow(self) -> bool:
        """Whether signing takes so long that it belongs in a thread."""

    def public_key(self) -> NotePublicKey:
        """Return the public half."""

    def sign(self, text: bytes) -> bytes:
        """Sign with the one algorithm of the key's type, in the encoding that the module describes."""


class CheckpointSigner(Protocol):
    """What signs a log's checkpoints: one key, or one that followed another."""

    @property
    def is_slow(self) -> bool:
        """Whether signing takes so long that it belongs in a thread."""

    @property
    def public_key_der(self) -> bytes:
        """The key that verifies what is signed now, SubjectPublicKeyInfo."""

    def sign(self, checkpoint: Checkpoint) -> bytes:
        """Return the signed note (UTF-8) of a committed tree head."""


class NoteSigner:
    """Signs the checkpoints of one log."""

    def __init__(self, origin: str, key: LogKey) -> None:
        """Take origin and key; raises CheckpointFormatError or CheckpointKeyError where they do not serve."""
        self.origin = _checked_origin(origin)
        self.is_slow = key.is_slow
        self.public_key_der = _encode(_checked_key(key.public_key()))
        self._key = key
        self._key_id = note_key_id(origin, key.public_key())

    @classmethod
    def from_private_key(cls, origin: str, key: PrivateKeyTypes) -> NoteSigner:
        """Sign with a key in memory: Ed25519, ECDSA P-256, or RSA of at least 2048 bits."""
        if not isinstance(key, Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey):
            raise CheckpointKeyError(_UNSUPPORTED)
        return cls(origin, _MemoryKey(key))

    def sign(self, checkpoint: Checkpoint) -> bytes:
        """Return the signed note (UTF-8) of a committed tree head; blocks for as long as the key takes."""
        return b"%s\n%s" % (checkpoint.text(), self.signature_line(checkpoint))

    @property
    def key(self) -> LogKey:
        """What signs."""
        return self._key

    def signature_line(self, checkpoint: Checkpoint) -> bytes:
        """Return the note's line with this key's signature; a note may have one of each of several keys."""
        if checkpoint.origin != self.origin:
            raise CheckpointOriginError(f"This key signs for {self.origin}, not for {checkpoint.origin}.")
        signature = encode_base64(self._key_id + self._key.sign(checkpoint.text()))
        return b"\xe2\x80\x94 %s %s\n" % (self.origin.encode(), signature)


class NoteVerifier:
    """Verifies the checkpoints of one log under its public key, or under the keys that followed one another."""

    def __init__(self, origin: str, public_key: NotePublicKey, *older: NotePublicKey) -> None:
        self.origin = _checked_origin(origin)
        self._keys = [(note_key_id(origin, key), _checked_key(key)) for key in (public_key, *older)]

    @classmethod
    def from_public_key(cls, origin: str, public_key_der: bytes, *older: bytes) -> NoteVerifier:
        """Verify with SubjectPublicKeyInfos (DER); raises CheckpointKeyError where one does not serve."""
        return cls(origin, *(_load_public_key(der) for der in (public_key_der, *older)))

    def verify(self, note: bytes) -> Checkpoint:
        """Return the checkpoint of a note (UTF-8) that a known key signed, and no signature of one is wrong.

        Signatures of other keys are ignored. A key signs a note once: whoever repeats its line makes readers verify in
        vain. Raises CheckpointFormatError for anything but the exact format, and for two signatures of one known key,
        CheckpointOriginError for another log, and CheckpointSignatureError without a signature that verifies.
        """
        text, signatures = _split(note)
        checkpoint = _parse_text(text)
        if checkpoint.origin != self.origin:
            raise CheckpointOriginError(f"The checkpoint does not belong to the log {self.origin}.")
        known = [
            (key, signature[KEY_ID_SIZE:])
            for name, signature in signatures
            for key_id, key in self._keys
            if name == self.origin and signature.startswith(key_id)
        ]
        if len({id(key) for key, _ in known}) < len(known):
            raise CheckpointFormatError(f"The checkpoint has two signatures of one key of {self.origin}.")
        if not known:
            raise CheckpointSignatureError(f"The checkpoint is not signed by the known key of {self.origin}.")
        for key, signature in known:
            self._check(key, signature, text)
        return checkpoint

    def _check(self, key: NotePublicKey, signature: bytes, text: bytes) -> None:
        try:
            if isinstance(key, Ed25519PublicKey):
                key.verify(signature, text)
            elif isinstance(key, EllipticCurvePublicKey):
                key.verify(signature, text, ECDSA(SHA256()))
            else:
                key.verify(signature, text, _PSS, SHA256())
        except InvalidSignature:
            raise CheckpointSignatureError(f"The signature by {self.origin} does not verify.") from None


def note_text(note: bytes) -> bytes:
    """Return the signed text of a note, with its final newline; raises CheckpointFormatError."""
    return _split(note)[0]


def signatures_of(note: bytes) -> list[tuple[str, bytes]]:
    """Return a note's signatures as (key name, key id followed by signature); raises CheckpointFormatError."""
    return _split(note)[1]


def parse_checkpoint(note: bytes) -> Checkpoint:
    """Return the checkpoint of a note, no signature of which is looked at; raises CheckpointFormatError."""
    return _parse_text(note_text(note))


def _load_public_key(der: bytes) -> NotePublicKey:
    try:
        key = load_der_public_key(der)
    except PARSING_ERRORS as error:
        raise CheckpointKeyError("The log's public key does not load; give its SPKI.") from error
    if not isinstance(key, NotePublicKey):
        raise CheckpointKeyError(_UNSUPPORTED)
    if _encode(key) != der:
        raise CheckpointKeyError("The log's public key is not in its canonical encoding; encode it again.")
    return key


class _MemoryKey:
    is_slow = False

    def __init__(self, key: Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey) -> None:
        self._key = key

    def public_key(self) -> NotePublicKey:
        return self._key.public_key()

    def sign(self, text: bytes) -> bytes:
        if isinstance(self._key, Ed25519PrivateKey):
            return self._key.sign(text)
        if isinstance(self._key, EllipticCurvePrivateKey):
            return self._key.sign(text, ECDSA(SHA256()))
        return self._key.sign(text, _PSS, SHA256())


def note_key_id(origin: str, public_key: NotePublicKey) -> bytes:
    """Return the key id (4 bytes) that a note's signature line begins with (c2sp.org/signed-note)."""
    if isinstance(public_key, Ed25519PublicKey):
        source = origin.encode() + b"\n" + _ED25519 + public_key.public_bytes_raw()
    elif isinstance(public_key, EllipticCurvePublicKey):
        source = _encode(public_key)
    else:
        source = origin.encode() + b"\n" + _RSA_PSS + _encode(public_key)
    return sha256(source).digest()[:KEY_ID_SIZE]


_UNSUPPORTED: Final = (
    f"Checkpoints are signed with Ed25519, ECDSA P-256 or RSA of {MIN_RSA_BITS} bits; use such a key."
)


def _checked_key(key: NotePublicKey) -> NotePublicKey:
    wrong_curve = isinstance(key, EllipticCurvePublicKey) and not isinstance(key.curve, SECP256R1)
    if wrong_curve or (isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS):
        raise CheckpointKeyError(_UNSUPPORTED)
    return key


def _checked_origin(origin: str) -> str:
    """Refuse an origin that cannot be a key name too: it has neither spaces nor plus signs nor controls."""
    if not _ORIGIN.fullmatch(origin) or _CONTROLS.search(origin.encode()):
        raise CheckpointFormatError("A log's origin is one word without plus signs, such as example.org/drm.")
    return origin


def _encode(key: NotePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _split(note: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return the signed text and the signatures as (key name, key id followed by signature)."""
    if len(note) > MAX_NOTE_SIZE or _CONTROLS.search(note):
        raise CheckpointFormatError("The checkpoint is too large or holds control characters.")
    body, separator, lines = note.rpartition(b"\n\n")
    if not separator or not lines.endswith(b"\n"):
        raise CheckpointFormatError(
            "The checkpoint is not a signed note, which has text, an empty line and signature lines."
        )
    if lines.count(b"\n") > MAX_SIGNATURES:
        raise CheckpointFormatError(f"The checkpoint has more than {MAX_SIGNATURES} signatures.")
    try:
        return body + b"\n", list(_signatures(lines.decode()))
    except ValueError:
        raise CheckpointFormatError("A signature line of the checkpoint is malformed.") from None


def _signatures(lines: str) -> Iterator[tuple[str, bytes]]:
    for line in lines[:-1].split("\n"):
        match = _SIGNATURE_LINE.fullmatch(line)
        if match is None:
            raise ValueError("no signature line")
        signature = decode_base64(match["signature"].encode())
        if len(signature) <= KEY_ID_SIZE:
            raise ValueError("no signature after the key id")
        yield match["name"], signature


def _parse_text(text: bytes) -> Checkpoint:
    lines = text[:-1].split(b"\n")
    if len(lines) != 3:
        raise CheckpointFormatError(
            "The checkpoint's text is not the three lines origin, size and root hash."
        )
    try:
        origin, size, root = lines[0].decode(), parse_decimal(lines[1]), decode_base64(lines[2])
    except ValueError:
        raise CheckpointFormatError("The checkpoint's tree size or root hash is malformed.") from None
    if not origin or len(root) != HASH_SIZE:
        raise CheckpointFormatError("The checkpoint's origin is empty or its root hash is not 32 bytes.")
    return Checkpoint(origin, size, root)
